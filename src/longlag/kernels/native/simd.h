// Vectors by the compiler's own extension (gcc and clang, any machine), and functions of them.
//
// NaN and infinity come out as they should, so this is never compiled with -ffast-math. Errors of
// exp, expm1, log, log1p, tanh and logistic are below 4 units in the last place; `tests/kernels`
// measures them. In double precision the functions are those of the C library.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace longlag {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename R>
constexpr int kLanes = kVectorBytes / sizeof(R);

typedef float FloatVector __attribute__((vector_size(kVectorBytes)));
typedef double DoubleVector __attribute__((vector_size(kVectorBytes)));
typedef int32_t IntVector __attribute__((vector_size(kVectorBytes)));

template <typename R>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = FloatVector;
};
template <>
struct VectorOf<double> {
  using type = DoubleVector;
};
template <typename R>
using Vector = typename VectorOf<R>::type;

template <typename R>
inline Vector<R> load(const R* p) {
  Vector<R> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
// The first n numbers; the others are zero.
template <typename R>
inline Vector<R> load(const R* p, int64_t n) {
  Vector<R> v{};
  std::memcpy(&v, p, n * sizeof(R));
  return v;
}
template <typename R>
inline void store(R* p, Vector<R> v) {
  std::memcpy(p, &v, sizeof v);
}
template <typename R>
inline void store(R* p, Vector<R> v, int64_t n) {
  std::memcpy(p, &v, n * sizeof(R));
}
// Past the caches, to a multiple of `kVectorBytes`; `fence` before another thread reads it.
template <typename R>
inline void stream(R* p, Vector<R> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
  store(p, v);
#endif
}
inline void fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}
template <typename R>
inline Vector<R> spread(R x) {
  return Vector<R>{} + x;
}

template <typename R, typename F>
inline Vector<R> each(Vector<R> x, F f) {
  for (int i = 0; i < kLanes<R>; ++i) x[i] = f(x[i]);
  return x;
}
template <typename R, typename F>
inline Vector<R> each(Vector<R> x, Vector<R> y, F f) {
  for (int i = 0; i < kLanes<R>; ++i) x[i] = f(x[i], y[i]);
  return x;
}

// A bound with a NaN stays NaN, since the comparison is false.
inline FloatVector bounded(FloatVector x, float low, float high) {
  x = x < low ? spread(low) : x;
  return x > high ? spread(high) : x;
}

// x = n log 2 + r with |r| at most half of log 2; returns n, and expm1(r) in `rest`.
inline IntVector reduce_exp(FloatVector x, FloatVector& rest) {
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number
  const FloatVector shifted = x * 1.44269504f + magic, n = shifted - magic;
  FloatVector r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  // expm1(r) = r + r^2 q(r), with q by Chebyshev interpolation.
  FloatVector q = spread(1.392619105622135e-3f);
  q = q * r + 8.36318503153866e-3f;
  q = q * r + 4.166655457234665e-2f;
  q = q * r + 1.6666576953788756e-1f;
  q = q * r + 0.5f;
  rest = q * (r * r) + r;
  return (IntVector)shifted - 0x4B400000;
}
inline FloatVector power_of_two(IntVector n) { return (FloatVector)((n + 127) << 23); }

inline FloatVector vector_exp(FloatVector x) {
  x = bounded(x, -104.f, 89.f);
  FloatVector rest;
  const IntVector n = reduce_exp(x, rest), half = n >> 1;
  // In two factors, so that the largest and the smallest results are rounded once.
  return (rest + 1.f) * power_of_two(half) * power_of_two(n - half);
}
inline FloatVector vector_expm1(FloatVector x) {
  FloatVector rest;
  const FloatVector scale = power_of_two(reduce_exp(bounded(x, -18.f, 20.f), rest));
  const FloatVector near = rest * scale + (scale - 1.f);
  return x > 18.f ? vector_exp(x) - 1.f : near;
}
inline FloatVector vector_logistic(FloatVector x) { return 1.f / (1.f + vector_exp(-x)); }
inline FloatVector vector_tanh(FloatVector x) {
  FloatVector rest;
  const FloatVector twice = bounded(x + x, -20.f, 20.f);
  const FloatVector scale = power_of_two(reduce_exp(twice, rest));
  const FloatVector m = rest * scale + (scale - 1.f);  // no cancellation near zero, where scale is 1
  const FloatVector y = m / (m + 2.f);
  return y == 0.f ? x : y;  // keeps the sign of a zero
}
inline FloatVector vector_log(FloatVector x) {
  // x = 2^e m with m from 0.707 to 1.414; log m is the series of atanh in (m - 1) / (m + 1).
  const FloatVector wide = x < 1.17549435e-38f ? x * 8388608.f : x;
  const IntVector bits = (IntVector)wide, e = (bits - 0x3F3504F3) >> 23;
  const FloatVector m = (FloatVector)(bits - (e << 23)), f = m - 1.f, s = f / (f + 2.f), z = s * s;
  const FloatVector h = 0.5f * f * f;
  const FloatVector r =
      z * (0.66666662693f + z * (0.40000972152f + z * (0.28498786688f + z * 0.24279078841f)));
  FloatVector n = __builtin_convertvector(e, FloatVector);
  n = x < 1.17549435e-38f ? n - 23.f : n;
  FloatVector y = n * 0.693359375f + (f - (h - s * (h + r) + n * 2.12194440e-4f));
  y = x == 0.f ? spread(-std::numeric_limits<float>::infinity()) : y;
  y = x < 0.f ? spread(std::numeric_limits<float>::quiet_NaN()) : y;
  return x < std::numeric_limits<float>::infinity() ? y : x;  // infinity and NaN
}
inline FloatVector vector_log1p(FloatVector x) {
  const FloatVector u = 1.f + x, d = u - 1.f;
  const FloatVector y = vector_log(u) * (x / (d == 0.f ? spread(1.f) : d));
  return d == 0.f ? x : u < std::numeric_limits<float>::infinity() ? y : u;
}

#define LONGLAG_SCALAR(NAME, FUNCTION) \
  inline DoubleVector vector_##NAME(DoubleVector x) { return each<double>(x, [](double v) { return FUNCTION; }); }
LONGLAG_SCALAR(exp, std::exp(v))
LONGLAG_SCALAR(expm1, std::expm1(v))
LONGLAG_SCALAR(logistic, 1 / (1 + std::exp(-v)))
LONGLAG_SCALAR(tanh, std::tanh(v))
LONGLAG_SCALAR(log, std::log(v))
LONGLAG_SCALAR(log1p, std::log1p(v))
#undef LONGLAG_SCALAR

// To the nearest number that bfloat16 can hold, ties to even.
inline FloatVector to_bfloat16(FloatVector x) {
  IntVector bits = (IntVector)x;
  bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & (int32_t)0xFFFF0000;
  return x == x ? (FloatVector)bits : x;
}
inline DoubleVector to_bfloat16(DoubleVector x) { return x; }

}  // namespace longlag
