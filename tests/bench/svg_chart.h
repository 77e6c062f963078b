// Small line charts as one SVG: a grid of panels that share a legend. Legible on light and on dark pages.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace freshet::bench {

struct SvgCurve {
  std::string name;  // of the legend; equal names have one colour
  std::vector<std::pair<double, double>> points;
};

struct SvgPanel {
  std::string title;
  std::string x_title;
  std::vector<SvgCurve> curves;
};

// `columns` panels beside each other. The vertical axis of each fits its points.
[[nodiscard]] std::string SvgCharts(const std::string& title, const std::vector<SvgPanel>& panels, std::size_t columns);

}  // namespace freshet::bench
