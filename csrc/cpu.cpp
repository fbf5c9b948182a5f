#include "cpu.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <immintrin.h>
#include <intrin.h>
#endif

namespace pipnet {
namespace {

#if defined(PIPNET_WITH_AVX2)
#if defined(_MSC_VER)
bool cpu_bit(int leaf, int reg, int bit) {
  int info[4];
  __cpuidex(info, leaf, 0);
  return (info[reg] >> bit) & 1;
}
// The operating system must save the wide registers too: XCR0 bits 1-2 for ymm, 5-7 for zmm.
bool os_saves(unsigned long long mask) { return cpu_bit(1, 2, 27) && (_xgetbv(0) & mask) == mask; }
bool has_avx2() { return os_saves(0x6) && cpu_bit(7, 1, 5) && cpu_bit(1, 2, 12) && cpu_bit(1, 2, 29); }
bool has_avx512() { return os_saves(0xe6) && cpu_bit(7, 1, 16) && cpu_bit(1, 2, 12); }
#else
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma"); }
#endif
#endif

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::scalar};
#if defined(PIPNET_WITH_NEON)
  found.push_back(Isa::neon);  // part of every 64-bit ARM
#endif
#if defined(PIPNET_WITH_AVX2)
  if (has_avx2()) found.push_back(Isa::avx2);
  if (has_avx512()) found.push_back(Isa::avx512);
#endif
  return found;
}

Isa parse(const std::string& name) {
  std::string known;
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
    known += known.empty() ? isa_name(isa) : std::string(", ") + isa_name(isa);
  }
  throw std::invalid_argument("instruction set: expected one of " + known + ", got '" + name + "'");
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa = [] {
    const char* wanted = std::getenv("PIPNET_ISA");
    return wanted != nullptr && *wanted != '\0' ? parse(wanted) : available_isas().back();
  }();
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::neon: return "neon";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
  }
  return "unknown";
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> found = detect();
  return found;
}

Isa current_isa() { return current().load(std::memory_order_relaxed); }

void use_isa(const std::string& name) { current().store(parse(name), std::memory_order_relaxed); }

}  // namespace pipnet
