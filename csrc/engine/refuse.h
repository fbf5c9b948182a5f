// How a plan file is refused.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace pipnet {

template <class Expected, class Got>
[[noreturn]] void refuse(const std::string& what, const Expected& expected, const Got& got) {
  std::ostringstream message;
  message << "plan file: " << what << ": expected " << expected << ", got " << got;
  throw std::invalid_argument(message.str());
}

// `where` is followed by `name` in the message.
inline void expect_between(std::int64_t value, std::int64_t low, std::int64_t high, const std::string& where,
                           const char* name) {
  if (value >= low && value <= high) return;
  const std::string range = low == high ? "" : " to " + std::to_string(high);
  refuse(where + name, std::to_string(low) + range, value);
}

}  // namespace pipnet
