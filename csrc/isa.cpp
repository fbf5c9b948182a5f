#include "isa.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pipnet {

// All that were compiled, up to a null: the build's list of the files in isa/.
extern const Isa* const kCompiledIsas[];

namespace {

#if defined(_M_X64) || defined(__x86_64__)

bool has(const CpuidBit& wanted) {
#if defined(_M_X64)
  int found[4];
  __cpuidex(found, 0, 0);
  if (static_cast<std::uint32_t>(found[0]) < wanted.leaf) return false;
  __cpuidex(found, static_cast<int>(wanted.leaf), 0);
#else
  unsigned found[4];
  if (!__get_cpuid_count(wanted.leaf, 0, &found[0], &found[1], &found[2], &found[3])) return false;
#endif
  return found[wanted.in] >> wanted.bit & 1;
}

// XCR0, which may only be asked for where CPUID says so.
std::uint32_t saved_registers() {
  if (!has({1, CpuidBit::ecx, 27})) return 0;
#if defined(_M_X64)
  return static_cast<std::uint32_t>(_xgetbv(0));
#else
  std::uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
#endif
}

#else

bool has(const CpuidBit&) { return false; }
std::uint32_t saved_registers() { return 0; }

#endif

bool runs(const Isa& isa) {
  if ((isa.saved_registers & saved_registers()) != isa.saved_registers) return false;
  return std::all_of(std::begin(isa.needs), std::end(isa.needs),
                     [](const CpuidBit& bit) { return bit.leaf == 0 || has(bit); });
}

std::vector<const Isa*> detect() {
  std::vector<const Isa*> found;
  for (const Isa* const* isa = kCompiledIsas; *isa != nullptr; ++isa)
    if (runs(**isa)) found.push_back(*isa);
  std::sort(found.begin(), found.end(), [](const Isa* a, const Isa* b) { return a->level < b->level; });
  return found;
}

const Isa* parse(const std::string& name) {
  std::string known;
  for (const Isa* isa : available_isas()) {
    if (name == isa->name) return isa;
    known += known.empty() ? isa->name : std::string(", ") + isa->name;
  }
  throw std::invalid_argument("instruction set: expected one of " + known + ", got '" + name + "'");
}

std::atomic<const Isa*>& current() {
  static std::atomic<const Isa*> isa = [] {
    const char* wanted = std::getenv("PIPNET_ISA");
    return wanted != nullptr && *wanted != '\0' ? parse(wanted) : available_isas().back();
  }();
  return isa;
}

}  // namespace

const std::vector<const Isa*>& available_isas() {
  static const std::vector<const Isa*> found = detect();
  return found;
}

const Isa& current_isa() { return *current().load(std::memory_order_relaxed); }

void use_isa(const std::string& name) { current().store(parse(name), std::memory_order_relaxed); }

}  // namespace pipnet
