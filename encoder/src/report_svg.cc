#include "report_svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr double kWidth = 460;
constexpr double kHeight = 260;
constexpr double kLeft = 52;
constexpr double kRight = 14;
constexpr double kTop = 34;
constexpr double kBottom = 36;
constexpr double kMapWidth = 940;
constexpr double kMapHeight = 620;
// Okabe and Ito's palette: told apart by everybody.
const char* const kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31"};
constexpr std::size_t kColourCount = std::size(kColours);

std::string Text(double x, double y, const char* anchor, const std::string& text, const char* more = "") {
  return StrCat("<text x=\"", NumberText(x, 1), "\" y=\"", NumberText(y, 1), "\" text-anchor=\"", anchor, "\" ", more,
                ">", HtmlEscape(text), "</text>");
}

std::string Line(double x1, double y1, double x2, double y2, const char* style) {
  return StrCat("<line x1=\"", NumberText(x1, 1), "\" y1=\"", NumberText(y1, 1), "\" x2=\"", NumberText(x2, 1),
                "\" y2=\"", NumberText(y2, 1), "\" ", style, "/>");
}

// 1, 2 or 5 times a power of ten, so that about four of them cover `range`.
double RoundStep(double range) {
  const double raw = std::max(range, 1e-9) / 4;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

}  // namespace

std::string HtmlEscape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        // Control characters have no place in a page.
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string NumberText(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

std::string LineChart(const std::string& title, const std::vector<ChartLine>& lines, int marked) {
  double low = std::numeric_limits<double>::max();
  double high = std::numeric_limits<double>::lowest();
  std::size_t count = 1;
  for (const ChartLine& line : lines) {
    count = std::max(count, line.values.size());
    for (const double value : line.values) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (low > high) return "";
  const double step = RoundStep(high - low > 1e-9 ? high - low : std::max(std::abs(high), 1e-3));
  low = std::floor(low / step) * step;
  high = std::ceil(high / step) * step;
  if (high <= low) high = low + step;
  const auto x_of = [&](double epoch) {
    const double span = std::max(static_cast<double>(count) - 1, 1.0);
    const double share = count == 1 ? 0.5 : (epoch - 1) / span;
    return kLeft + share * (kWidth - kLeft - kRight);
  };
  const auto y_of = [&](double value) {
    return kHeight - kBottom - (value - low) / (high - low) * (kHeight - kTop - kBottom);
  };
  const int digits = step >= 1 ? 0 : static_cast<int>(std::ceil(-std::log10(step) - 1e-9));

  std::string out = StrCat("<svg viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\" aria-label=\"",
                           HtmlEscape(title), "\">", Text(kLeft, 18, "start", title, "class=\"title\""));
  for (double y = low; y <= high + step / 2; y += step) {
    out += Line(kLeft, y_of(y), kWidth - kRight, y_of(y), "class=\"grid\"");
    out += Text(kLeft - 6, y_of(y) + 4, "end", NumberText(y, digits));
  }
  const std::size_t every = (count + 9) / 10;
  for (std::size_t epoch = 1; epoch <= count; epoch += every) {
    out += Text(x_of(static_cast<double>(epoch)), kHeight - kBottom + 16, "middle", StrCat(epoch));
  }
  out += Text((kLeft + kWidth - kRight) / 2, kHeight - 4, "middle", "epoch");
  double legend = kWidth - kRight;
  for (std::size_t i = lines.size(); i-- > 0;) {
    const ChartLine& line = lines[i];
    const char* colour = kColours[i % kColourCount];
    const std::string style = StrCat("stroke=\"", colour, "\"");
    if (lines.size() > 1) {
      out += Text(legend, 18, "end", line.name, StrCat("fill=\"", colour, "\"").c_str());
      legend -= 7.0 * static_cast<double>(line.name.size()) + 16;
    }
    if (line.values.size() == 1 && count > 1) {
      out += Line(kLeft, y_of(line.values[0]), kWidth - kRight, y_of(line.values[0]),
                  (style + " stroke-dasharray=\"5 4\" stroke-width=\"1.5\"").c_str());
      continue;
    }
    std::string points;
    for (std::size_t x = 0; x < line.values.size(); ++x) {
      const double px = x_of(static_cast<double>(x + 1));
      const double py = y_of(line.values[x]);
      points += StrCat(NumberText(px, 1), ",", NumberText(py, 1), " ");
      const bool ring = i == 0 && static_cast<int>(x) + 1 == marked;
      out += StrCat("<circle cx=\"", NumberText(px, 1), "\" cy=\"", NumberText(py, 1), "\" r=\"", ring ? 6 : 2.5, "\" ",
                    style, ring ? " fill=\"none\" stroke-width=\"2\"" : StrCat(" fill=\"", colour, "\""),
                    "><title>epoch ", x + 1, ": ", NumberText(line.values[x], 4), "</title></circle>");
    }
    out += StrCat("<polyline points=\"", points, "\" fill=\"none\" stroke-width=\"2\" ", style, "/>");
  }
  return out + "</svg>";
}

std::string ScatterMap(const std::vector<MapPoint>& points, const std::vector<std::string>& groups) {
  if (points.empty()) return "";
  double x_low = points[0].x;
  double x_high = points[0].x;
  double y_low = points[0].y;
  double y_high = points[0].y;
  for (const MapPoint& point : points) {
    x_low = std::min(x_low, point.x);
    x_high = std::max(x_high, point.x);
    y_low = std::min(y_low, point.y);
    y_high = std::max(y_high, point.y);
  }
  // One scale for both axes: distances on the map are distances in the plane.
  const double scale =
      std::min((kMapWidth - 40) / std::max(x_high - x_low, 1e-9), (kMapHeight - 70) / std::max(y_high - y_low, 1e-9));
  std::string out =
      StrCat("<svg viewBox=\"0 0 ", kMapWidth, " ", kMapHeight, "\" role=\"img\" aria-label=\"map of items\">");
  for (const MapPoint& point : points) {
    const double x = kMapWidth / 2 + (point.x - (x_low + x_high) / 2) * scale;
    const double y = (kMapHeight + 30) / 2 - (point.y - (y_low + y_high) / 2) * scale;
    const char* colour = point.group < groups.size() ? kColours[point.group % kColourCount] : "#a0a0a0";
    out += StrCat("<circle cx=\"", NumberText(x, 1), "\" cy=\"", NumberText(y, 1), "\" r=\"3.2\" fill=\"", colour,
                  "\" fill-opacity=\"0.65\"><title>", HtmlEscape(point.label), "</title></circle>");
  }
  double x = 10;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const char* colour = kColours[i % kColourCount];
    out += StrCat("<circle cx=\"", NumberText(x + 5, 1), "\" cy=\"14\" r=\"5\" fill=\"", colour, "\"/>");
    out += Text(x + 15, 18, "start", groups[i]);
    x += 7.0 * static_cast<double>(groups[i].size()) + 34;
  }
  return out + "</svg>";
}

}  // namespace freshet
