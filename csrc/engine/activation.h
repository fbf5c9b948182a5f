// Activation functions of vectors; ../isa/loops.h says what may stand here.
#pragma once

#include "kernels.h"

namespace pipnet {
namespace {

constexpr int kBlockVecs = static_cast<int>(kBlock) / Vec::kLanes;

// NaN stays NaN: the bounds come first.
template <typename V>
inline V hard_sigmoid(V x) {
  const V line = V::fma(x, V::broadcast(1.0f / 6.0f), V::broadcast(0.5f));
  return V::min(V::broadcast(1.0f), V::max(V::broadcast(0.0f), line));
}

template <Activation A, typename V>
inline V activated(V x) {
  const V zero = V::broadcast(0.0f);
  if constexpr (A == Activation::relu) return V::max(zero, x);
  if constexpr (A == Activation::relu6) return V::min(V::broadcast(6.0f), V::max(zero, x));
  if constexpr (A == Activation::hard_swish) return V::mul(x, hard_sigmoid(x));
  return x;
}

template <Activation A>
struct ActivationConstant {
  static constexpr Activation value = A;
};

// Calls body(ActivationConstant<activation>()): the value becomes a template argument, decltype(constant)::value.
template <typename Body>
inline void with_activation(Activation activation, Body body) {
  switch (activation) {
    case Activation::none: return body(ActivationConstant<Activation::none>());
    case Activation::relu: return body(ActivationConstant<Activation::relu>());
    case Activation::relu6: return body(ActivationConstant<Activation::relu6>());
    case Activation::hard_swish: return body(ActivationConstant<Activation::hard_swish>());
  }
}

}  // namespace
}  // namespace pipnet
