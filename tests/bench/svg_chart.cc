#include "svg_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "freshet/core/strings.h"

namespace freshet::bench {
namespace {

constexpr double kWidth = 420;  // of a panel
constexpr double kHeight = 210;
constexpr double kLeft = 52;
constexpr double kRight = 16;
constexpr double kTop = 34;
constexpr double kBottom = 36;
constexpr double kHead = 58;
constexpr std::array kColours = {"#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00"};
constexpr const char* kText = "#808080";

std::string Number(double value) {
  char text[32];
  (void)std::snprintf(text, sizeof(text), "%.6g", value);
  return text;
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text, int size = 11) {
  return StrCat("<text x=\"", Number(x), "\" y=\"", Number(y), "\" text-anchor=\"", anchor, "\" font-size=\"", size,
                "\">", text, "</text>\n");
}

std::string Line(double x1, double y1, double x2, double y2) {
  return StrCat("<line x1=\"", Number(x1), "\" y1=\"", Number(y1), "\" x2=\"", Number(x2), "\" y2=\"", Number(y2),
                "\" stroke=\"", kText, "\" stroke-opacity=\".35\"/>\n");
}

// A round step for about four ticks.
double TickStep(double range) {
  const double rough = std::max(range, 1e-9) / 4;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power) return factor * power;
  }
  return 10 * power;
}

std::string Panel(const SvgPanel& panel, const std::vector<std::string>& names, double left, double top) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  double x_least = kFar;
  double x_most = -kFar;
  double y_least = kFar;
  double y_most = -kFar;
  for (const SvgCurve& curve : panel.curves) {
    for (const auto& [x, y] : curve.points) {
      x_least = std::min(x_least, x);
      x_most = std::max(x_most, x);
      y_least = std::min(y_least, y);
      y_most = std::max(y_most, y);
    }
  }
  if (!(x_least <= x_most)) return "";
  if (x_least == x_most) x_most = x_least + 1;
  const double y_step = TickStep(std::max(y_most - y_least, 0.004));
  y_least = std::floor(y_least / y_step) * y_step;
  y_most = std::ceil(y_most / y_step + 1e-9) * y_step;
  const auto at_x = [&](double x) {
    return left + kLeft + (x - x_least) / (x_most - x_least) * (kWidth - kLeft - kRight);
  };
  const auto at_y = [&](double y) {
    return top + kHeight - kBottom - (y - y_least) / (y_most - y_least) * (kHeight - kTop - kBottom);
  };
  std::string out = Text(left + kLeft, top + kTop - 12, "start", panel.title, 13);
  const long y_ticks = std::lround((y_most - y_least) / y_step);
  for (long i = 0; i <= y_ticks; ++i) {
    const double y = y_least + static_cast<double>(i) * y_step;
    out += Line(at_x(x_least), at_y(y), at_x(x_most), at_y(y));
    out += Text(at_x(x_least) - 6, at_y(y) + 4, "end", Number(y));
  }
  const double x_step = std::max(1.0, TickStep(x_most - x_least));
  const long x_last = std::lround(std::floor(x_most / x_step));
  for (long i = std::lround(std::ceil(x_least / x_step)); i <= x_last; ++i) {
    const double x = static_cast<double>(i) * x_step;
    out += Text(at_x(x), at_y(y_least) + 15, "middle", Number(x));
  }
  out += Text((at_x(x_least) + at_x(x_most)) / 2, at_y(y_least) + 29, "middle", panel.x_title);
  for (const SvgCurve& curve : panel.curves) {
    const auto index = static_cast<std::size_t>(std::find(names.begin(), names.end(), curve.name) - names.begin());
    std::string points;
    for (const auto& [x, y] : curve.points) points += StrCat(Number(at_x(x)), ",", Number(at_y(y)), " ");
    out += StrCat("<polyline fill=\"none\" stroke=\"", kColours[index % kColours.size()],
                  "\" stroke-width=\"1.6\" points=\"", points, "\"/>\n");
  }
  return out;
}

}  // namespace

std::string SvgCharts(const std::string& title, const std::vector<SvgPanel>& panels, std::size_t columns) {
  std::vector<std::string> names;
  for (const SvgPanel& panel : panels) {
    for (const SvgCurve& curve : panel.curves) {
      if (std::find(names.begin(), names.end(), curve.name) == names.end()) names.push_back(curve.name);
    }
  }
  const std::size_t rows = (panels.size() + columns - 1) / columns;
  const double width = kWidth * static_cast<double>(columns);
  const double height = kHead + kHeight * static_cast<double>(rows);
  std::string out = StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", Number(width), "\" height=\"",
                           Number(height), "\" viewBox=\"0 0 ", Number(width), " ", Number(height),
                           "\" font-family=\"sans-serif\" fill=\"", kText, "\">\n");
  out += Text(kLeft, 20, "start", title, 14);
  double x = kLeft;
  for (std::size_t i = 0; i < names.size(); ++i) {
    out += StrCat("<rect x=\"", Number(x), "\" y=\"37\" width=\"14\" height=\"3\" fill=\"",
                  kColours[i % kColours.size()], "\"/>\n");
    out += Text(x + 20, 43, "start", names[i]);
    x += 44 + 6.2 * static_cast<double>(names[i].size());
  }
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const std::size_t row = i / columns;
    out +=
        Panel(panels[i], names, kWidth * static_cast<double>(i % columns), kHead + kHeight * static_cast<double>(row));
  }
  return out + "</svg>\n";
}

}  // namespace freshet::bench
