// The operations of a step, on tiles: some rows of a value.
#pragma once
#include <algorithm>

#include "simd.h"

namespace longlag {

// The numbers are those of NAMES in `schedule.py`.
enum Code : int64_t {
  kCopy, kNeg, kExp, kTanh, kLogistic, kLog, kLog1p, kExpm1, kSqrt, kRsqrt, kAbs, kSign, kSquare, kSin, kCos, kTan,
  kErf, kFloor, kCeil, kIsFinite, kNot, kCbrt, kRoundToBfloat16,
  kAdd, kSub, kMul, kDiv, kMax, kMin, kPow, kAtan2, kEq, kNe, kLt, kLe, kGt, kGe,
  kSelect, kRowSum, kRowMax, kRowMin, kProduct, kOuter, kColumns, kStream
};

// `row` is the stride from a row to the next, `column` 1, or 0 where one number stands for a row.
template <typename R>
struct Tile {
  R* at;
  int64_t row, column;
};

// One operation on one row, or on rows that lie side by side. A reduction reads `inner` columns for each of `width`.
template <typename R>
using RowFunction = void (*)(R* to, const R* a, const R* b, const R* c, int64_t width, int64_t inner);

template <typename R, int COLUMN>
inline Vector<R> read(const R* p, int64_t j) {
  if constexpr (COLUMN) return load(p + j);
  else return spread(*p);
}
template <typename R, int COLUMN>
inline Vector<R> read(const R* p, int64_t j, int64_t n) {
  if constexpr (COLUMN) return load(p + j, n);
  else return spread(*p);
}

// Below, F::at is the operation on vectors. A, B and C are 1, or 0 where one number stands for a row.
template <typename R, typename F, int A>
void unary_row(R* to, const R* a, const R*, const R*, int64_t width, int64_t) {
  constexpr int V = kLanes<R>;
  int64_t j = 0;
  for (; j + V <= width; j += V) store(to + j, F::at(read<R, A>(a, j)));
  if (j < width) store(to + j, F::at(read<R, A>(a, j, width - j)), width - j);
}
template <typename R, typename F>
RowFunction<R> unary(int64_t a) {
  return a ? unary_row<R, F, 1> : unary_row<R, F, 0>;
}

template <typename R, typename F, int A, int B>
void binary_row(R* to, const R* a, const R* b, const R*, int64_t width, int64_t) {
  constexpr int V = kLanes<R>;
  int64_t j = 0;
  for (; j + V <= width; j += V) store(to + j, F::at(read<R, A>(a, j), read<R, B>(b, j)));
  if (j < width) store(to + j, F::at(read<R, A>(a, j, width - j), read<R, B>(b, j, width - j)), width - j);
}
template <typename R, typename F>
RowFunction<R> binary(int64_t a, int64_t b) {
  if (a) return b ? binary_row<R, F, 1, 1> : binary_row<R, F, 1, 0>;
  return b ? binary_row<R, F, 0, 1> : binary_row<R, F, 0, 0>;
}

// flag ? b : a, number by number.
template <typename R, int FLAG, int A, int B>
void select_row(R* to, const R* flag, const R* a, const R* b, int64_t width, int64_t) {
  constexpr int V = kLanes<R>;
  if constexpr (!FLAG && A && B) {
    std::memmove(to, *flag != R(0) ? b : a, width * sizeof(R));
    return;
  }
  auto at = [](Vector<R> f, Vector<R> x, Vector<R> y) { return f != R(0) ? y : x; };
  int64_t j = 0;
  for (; j + V <= width; j += V) store(to + j, at(read<R, FLAG>(flag, j), read<R, A>(a, j), read<R, B>(b, j)));
  const int64_t n = width - j;
  if (n) store(to + j, at(read<R, FLAG>(flag, j, n), read<R, A>(a, j, n), read<R, B>(b, j, n)), n);
}
template <typename R, int FLAG>
RowFunction<R> select(int64_t a, int64_t b) {
  if (a) return b ? select_row<R, FLAG, 1, 1> : select_row<R, FLAG, 1, 0>;
  return b ? select_row<R, FLAG, 0, 1> : select_row<R, FLAG, 0, 0>;
}

// A copy into memory that this core will not read soon.
template <typename R>
void stream_row(R* to, const R* a, const R*, const R*, int64_t width, int64_t) {
  constexpr int V = kLanes<R>;
  const int64_t past = reinterpret_cast<uintptr_t>(to) % kVectorBytes / sizeof(R);
  int64_t j = past ? std::min<int64_t>(V - past, width) : 0;
  store(to, load(a, j), j);
  for (; j + V <= width; j += V) stream(to + j, load(a + j));
  store(to + j, load(a + j, width - j), width - j);
}

// Parts of each row, `inner` columns each, into a column each.
template <typename R, typename F>
void reduce_row(R* to, const R* a, const R*, const R*, int64_t width, int64_t inner) {
  constexpr int V = kLanes<R>;
  for (int64_t k = 0; k < width; ++k) {
    const R* x = a + k * inner;
    Vector<R> sum = spread(F::first);
    int64_t j = 0;
    for (; j + V <= inner; j += V) sum = F::at(sum, load(x + j));
    R total = F::first;
    for (int i = 0; i < V; ++i) total = F::at(spread(total), spread(R(sum[i])))[0];
    for (; j < inner; ++j) total = F::at(spread(total), spread(x[j]))[0];
    to[k] = total;
  }
}

template <typename R>
inline Vector<R> flag(decltype(Vector<R>{} < Vector<R>{}) mask) {
  return mask ? spread(R(1)) : Vector<R>{};
}
// The greater; NaN if one of them is.
template <typename R>
inline Vector<R> greater(Vector<R> x, Vector<R> y) {
  const Vector<R> m = x > y ? x : y;
  return x == x ? m : x;
}
template <typename R>
inline Vector<R> lesser(Vector<R> x, Vector<R> y) {
  const Vector<R> m = x < y ? x : y;
  return x == x ? m : x;
}

template <typename R>
struct Sum {
  static constexpr R first = 0;
  static Vector<R> at(Vector<R> x, Vector<R> y) { return x + y; }
};
template <typename R>
struct Greatest {
  static constexpr R first = -std::numeric_limits<R>::infinity();
  static Vector<R> at(Vector<R> x, Vector<R> y) { return greater<R>(x, y); }
};
template <typename R>
struct Least {
  static constexpr R first = std::numeric_limits<R>::infinity();
  static Vector<R> at(Vector<R> x, Vector<R> y) { return lesser<R>(x, y); }
};

// How many operands a code has.
inline int operands(int64_t code) { return code == kSelect ? 3 : code >= kAdd && code < kSelect ? 2 : 1; }

// The function of a code, for operands with such a `column`. Products and sums over rows have none.
template <typename R>
RowFunction<R> row_function(int64_t code, int64_t a, int64_t b, int64_t c) {
  using V = Vector<R>;
#define UNARY(CODE, E)                 \
  case CODE: {                         \
    struct F {                         \
      static V at(V x) { return E; }   \
    };                                 \
    return unary<R, F>(a);             \
  }
#define SCALAR(CODE, E) UNARY(CODE, (each<R>(x, [](R v) { return R(E); })))
#define BINARY(CODE, E)                     \
  case CODE: {                              \
    struct F {                              \
      static V at(V x, V y) { return E; }   \
    };                                      \
    return binary<R, F>(a, b);              \
  }
  switch (code) {
    UNARY(kCopy, x)
    UNARY(kNeg, -x)
    UNARY(kExp, vector_exp(x))
    UNARY(kTanh, vector_tanh(x))
    UNARY(kLogistic, vector_logistic(x))
    UNARY(kLog, vector_log(x))
    UNARY(kLog1p, vector_log1p(x))
    UNARY(kExpm1, vector_expm1(x))
    SCALAR(kSqrt, std::sqrt(v))
    UNARY(kRsqrt, (R(1) / each<R>(x, [](R v) { return R(std::sqrt(v)); })))
    SCALAR(kAbs, std::fabs(v))
    UNARY(kSign, (x > R(0) ? spread(R(1)) : x < R(0) ? spread(R(-1)) : x))
    UNARY(kSquare, x* x)
    SCALAR(kSin, std::sin(v))
    SCALAR(kCos, std::cos(v))
    SCALAR(kTan, std::tan(v))
    SCALAR(kErf, std::erf(v))
    SCALAR(kFloor, std::floor(v))
    SCALAR(kCeil, std::ceil(v))
    UNARY(kIsFinite, flag<R>(x - x == R(0)))
    UNARY(kNot, R(1) - x)
    SCALAR(kCbrt, std::cbrt(v))
    UNARY(kRoundToBfloat16, to_bfloat16(x))
    BINARY(kAdd, x + y)
    BINARY(kSub, x - y)
    BINARY(kMul, x* y)
    BINARY(kDiv, x / y)
    BINARY(kMax, greater<R>(x, y))
    BINARY(kMin, lesser<R>(x, y))
    BINARY(kPow, (each<R>(x, y, [](R v, R w) { return R(std::pow(v, w)); })))
    BINARY(kAtan2, (each<R>(x, y, [](R v, R w) { return R(std::atan2(v, w)); })))
    BINARY(kEq, flag<R>(x == y))
    BINARY(kNe, flag<R>(x != y))
    BINARY(kLt, flag<R>(x < y))
    BINARY(kLe, flag<R>(x <= y))
    BINARY(kGt, flag<R>(x > y))
    BINARY(kGe, flag<R>(x >= y))
    case kSelect:
      return a ? select<R, 1>(b, c) : select<R, 0>(b, c);
    case kStream:
      return stream_row<R>;
    case kRowSum:
      return reduce_row<R, Sum<R>>;
    case kRowMax:
      return reduce_row<R, Greatest<R>>;
    case kRowMin:
      return reduce_row<R, Least<R>>;
  }
#undef UNARY
#undef SCALAR
#undef BINARY
  return nullptr;
}

// Rows that lie side by side everywhere are one long row.
template <typename R>
inline bool side_by_side(const Tile<R>& x, int64_t width) {
  return (x.column && x.row == width) || (!x.column && !x.row);
}

// One operation on some rows. Operands that a code does not have repeat another.
template <typename R>
void operate(RowFunction<R> f, Tile<R> to, Tile<R> a, Tile<R> b, Tile<R> c, int64_t rows, int64_t width,
             int64_t inner) {
  if (to.row == width && side_by_side(a, width) && side_by_side(b, width) && side_by_side(c, width))
    width *= rows, rows = 1;
  for (int64_t r = 0; r < rows; ++r)
    f(to.at + r * to.row, a.at + r * a.row, b.at + r * b.row, c.at + r * c.row, width, inner);
}

}  // namespace longlag
