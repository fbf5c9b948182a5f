#include "simd/avx2.h"

// The body uses the instruction set included above.
#include "decode_body.h"

namespace pipnet {

void decode_planes_avx2(const DecodeArgs& args, std::int64_t begin, std::int64_t end) {
  decode_planes(args, begin, end);
}

}  // namespace pipnet
