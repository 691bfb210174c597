// The operations of a step, on tiles: some rows of a value.
#pragma once
#include "simd.h"

namespace longlag {

// The numbers are those of NAMES in `schedule.py`.
enum Code : int64_t {
  kCopy, kNeg, kExp, kTanh, kLogistic, kLog, kLog1p, kExpm1, kSqrt, kRsqrt, kAbs, kSign, kSquare, kSin, kCos, kTan,
  kErf, kFloor, kCeil, kIsFinite, kNot, kCbrt, kRoundToBfloat16,
  kAdd, kSub, kMul, kDiv, kMax, kMin, kPow, kAtan2, kEq, kNe, kLt, kLe, kGt, kGe,
  kSelect, kRowSum, kRowMax, kRowMin, kProduct, kOuter, kColumns
};

// `row` is the stride from a row to the next, `column` 1, or 0 where one number stands for a row.
template <typename R>
struct Tile {
  R* at;
  int64_t row, column;
};

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

// Rows that lie side by side everywhere are one long row.
template <typename R>
inline bool side_by_side(const Tile<R>& x, int64_t width) {
  return (x.column && x.row == width) || (!x.column && !x.row);
}

template <typename R, int A, typename F>
inline void map_rows(Tile<R> to, Tile<R> a, int64_t rows, int64_t width, F f) {
  constexpr int V = kLanes<R>;
  for (int64_t r = 0; r < rows; ++r) {
    R* out = to.at + r * to.row;
    const R* x = a.at + r * a.row;
    int64_t j = 0;
    for (; j + V <= width; j += V) store(out + j, f(read<R, A>(x, j)));
    if (j < width) store(out + j, f(read<R, A>(x, j, width - j)), width - j);
  }
}
template <typename R, typename F>
inline void map(Tile<R> to, Tile<R> a, int64_t rows, int64_t width, F f) {
  if (to.row == width && side_by_side(a, width)) width *= rows, rows = 1;
  if (a.column) map_rows<R, 1>(to, a, rows, width, f);
  else map_rows<R, 0>(to, a, rows, width, f);
}

template <typename R, int A, int B, typename F>
inline void map_rows(Tile<R> to, Tile<R> a, Tile<R> b, int64_t rows, int64_t width, F f) {
  constexpr int V = kLanes<R>;
  for (int64_t r = 0; r < rows; ++r) {
    R* out = to.at + r * to.row;
    const R *x = a.at + r * a.row, *y = b.at + r * b.row;
    int64_t j = 0;
    for (; j + V <= width; j += V) store(out + j, f(read<R, A>(x, j), read<R, B>(y, j)));
    if (j < width) store(out + j, f(read<R, A>(x, j, width - j), read<R, B>(y, j, width - j)), width - j);
  }
}
template <typename R, typename F>
inline void map(Tile<R> to, Tile<R> a, Tile<R> b, int64_t rows, int64_t width, F f) {
  if (to.row == width && side_by_side(a, width) && side_by_side(b, width)) width *= rows, rows = 1;
  if (a.column && b.column) map_rows<R, 1, 1>(to, a, b, rows, width, f);
  else if (a.column) map_rows<R, 1, 0>(to, a, b, rows, width, f);
  else if (b.column) map_rows<R, 0, 1>(to, a, b, rows, width, f);
  else map_rows<R, 0, 0>(to, a, b, rows, width, f);
}

// flag ? b : a, number by number.
template <typename R>
inline void select(Tile<R> to, Tile<R> flag, Tile<R> a, Tile<R> b, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    R* out = to.at + r * to.row;
    const R *f = flag.at + r * flag.row, *x = a.at + r * a.row, *y = b.at + r * b.row;
    if (!flag.column && a.column && b.column) {
      std::memmove(out, *f != R(0) ? y : x, width * sizeof(R));
    } else {
      for (int64_t j = 0; j < width; ++j) out[j] = f[j * flag.column] != R(0) ? y[j * b.column] : x[j * a.column];
    }
  }
}

// Parts of each row, `inner` columns each, into a column each.
template <typename R, typename F>
inline void reduce(Tile<R> to, Tile<R> a, int64_t rows, int64_t width, int64_t inner, R first, F f) {
  constexpr int V = kLanes<R>;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < width; ++k) {
      const R* x = a.at + r * a.row + k * inner;
      Vector<R> sum = spread(first);
      int64_t j = 0;
      for (; j + V <= inner; j += V) sum = f(sum, load(x + j));
      R total = first;
      for (int i = 0; i < V; ++i) total = f(spread(total), spread(R(sum[i])))[0];
      for (; j < inner; ++j) total = f(spread(total), spread(x[j]))[0];
      to.at[r * to.row + k] = total;
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

// One operation on some rows. Products and sums over rows are not among them.
template <typename R>
void operate(int64_t code, Tile<R> to, Tile<R> a, Tile<R> b, Tile<R> c, int64_t rows, int64_t width, int64_t inner) {
  using V = Vector<R>;
#define UNARY(CODE, E) \
  case CODE:           \
    return map(to, a, rows, width, [](V x) { return E; });
#define SCALAR(CODE, E) UNARY(CODE, (each<R>(x, [](R v) { return R(E); })))
#define BINARY(CODE, E) \
  case CODE:            \
    return map(to, a, b, rows, width, [](V x, V y) { return E; });
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
      return select(to, a, b, c, rows, width);
    case kRowSum:
      return reduce(to, a, rows, width, inner, R(0), [](V x, V y) { return x + y; });
    case kRowMax:
      return reduce(to, a, rows, width, inner, -std::numeric_limits<R>::infinity(),
                    [](V x, V y) { return greater<R>(x, y); });
    case kRowMin:
      return reduce(to, a, rows, width, inner, std::numeric_limits<R>::infinity(),
                    [](V x, V y) { return lesser<R>(x, y); });
  }
#undef UNARY
#undef SCALAR
#undef BINARY
}

}  // namespace longlag
