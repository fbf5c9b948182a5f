#include "simd/avx512.h"

// The body uses the instruction set included above.
#include "head_decode_body.h"

namespace pipnet {

void head_decode_panels_avx512(const HeadDecodeArgs& args, Panels& panels) {
  head_decode_panels(args, panels);
}

}  // namespace pipnet
