// Charts as inline SVG, for pages that must stand alone.
//
// Place in the flow: the report of a training. Pure functions, thread-safe. All text is escaped.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace freshet {

[[nodiscard]] std::string HtmlEscape(std::string_view text);
// "0.253", "41,200": as many digits as a reader wants.
[[nodiscard]] std::string NumberText(double value, int digits);

struct ChartLine {
  std::string name;
  std::vector<double> values;  // at x = 1, 2, ...; one value: a level across the chart
};
// Lines over epochs; `marked` is the x with a ring on the first line, 0: none. The y axis ends at round numbers.
[[nodiscard]] std::string LineChart(const std::string& title, const std::vector<ChartLine>& lines, int marked);

struct MapPoint {
  double x = 0;
  double y = 0;
  std::size_t group = 0;  // of `groups`; beyond: drawn grey, without a name
  std::string label;      // shown under the pointer
};
[[nodiscard]] std::string ScatterMap(const std::vector<MapPoint>& points, const std::vector<std::string>& groups);

}  // namespace freshet
