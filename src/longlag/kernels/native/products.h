// Products on one thread: C = A B or C += A B with B packed into panels, and C += Aᵀ B.
//
// Each number of a result is a sum in one order, whatever the rows that are taken at once. So the
// bits of a result do not depend on how rows are shared out among threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace longlag {

template <typename R>
constexpr int kPanel = 2 * kLanes<R>;                 // columns of a panel
constexpr int kTileRows = kVectorBytes == 64 ? 12 : 6;  // as many as there are registers for

template <typename R>
inline int64_t packed_size(int64_t rows, int64_t columns) {
  return (columns + kPanel<R> - 1) / kPanel<R> * kPanel<R> * rows;
}

// A matrix with strides into [panel][row][column of the panel], with zeros beyond its last column.
template <typename R>
void pack(const R* from, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns, R* to) {
  for (int64_t panel = 0; panel < columns; panel += kPanel<R>)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = panel; j < panel + kPanel<R>; ++j)
        *to++ = j < columns ? from[i * row_stride + j * column_stride] : R(0);
}

// ROWS by VECTORS vectors of C.
template <typename R, int ROWS, int VECTORS>
inline void tile(int64_t inner, const R* a, int64_t a_row, const R* b, int64_t panel, R* c, int64_t c_row, bool adds) {
  constexpr int V = kLanes<R>, P = kPanel<R>;
  Vector<R> sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
    for (int q = 0; q < VECTORS; ++q) sum[r][q] = adds ? load(c + r * c_row + q * V) : Vector<R>{};
  for (int64_t i = 0; i < inner; ++i) {
    Vector<R> v[VECTORS];
#pragma GCC unroll 8
    for (int q = 0; q < VECTORS; ++q) v[q] = load(b + (q / 2) * panel + i * P + (q % 2) * V);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const Vector<R> x = spread(a[r * a_row + i]);
#pragma GCC unroll 8
      for (int q = 0; q < VECTORS; ++q) sum[r][q] += x * v[q];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
    for (int q = 0; q < VECTORS; ++q) store(c + r * c_row + q * V, sum[r][q]);
}

#define LONGLAG_CASES(MANY) \
  MANY(1) MANY(2) MANY(3) MANY(4) MANY(5) MANY(6) MANY(7) MANY(8) MANY(9) MANY(10) MANY(11) MANY(12)

template <typename R, int VECTORS>
inline void some_rows(int64_t rows, int64_t inner, const R* a, int64_t a_row, const R* b, int64_t panel, R* c,
                      int64_t c_row, bool adds) {
  switch (rows) {
#define LONGLAG_CASE(N)                                                 \
  case N:                                                               \
    if constexpr (N * VECTORS <= 2 * kTileRows && N <= kTileRows)       \
      tile<R, N, VECTORS>(inner, a, a_row, b, panel, c, c_row, adds);   \
    break;
    LONGLAG_CASES(LONGLAG_CASE)
#undef LONGLAG_CASE
  }
}

// C [rows, columns] = or += A [rows, inner] B, B packed.
template <typename R>
void product(int64_t rows, int64_t columns, int64_t inner, const R* a, int64_t a_row, const R* b, R* c, int64_t c_row,
             bool adds) {
  constexpr int V = kLanes<R>, P = kPanel<R>;
  const int64_t panel = P * inner;
  int64_t j = 0;
  // Few rows: several panels at once, so that there are sums enough to hide the latency of one.
  if (rows * 4 <= kTileRows)
    for (; j + 4 * P <= columns; j += 4 * P) some_rows<R, 8>(rows, inner, a, a_row, b + j * inner, panel, c + j, c_row, adds);
  if (rows * 2 <= kTileRows)
    for (; j + 2 * P <= columns; j += 2 * P) some_rows<R, 4>(rows, inner, a, a_row, b + j * inner, panel, c + j, c_row, adds);
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows, height = tiles ? (rows + tiles - 1) / tiles : 1;
  auto in_tiles = [&](auto f) {
    for (int64_t i = 0; i < rows; i += height) f(std::min(height, rows - i), a + i * a_row, c + i * c_row);
  };
  for (; j + P <= columns; j += P)
    in_tiles([&](int64_t some, const R* x, R* y) { some_rows<R, 2>(some, inner, x, a_row, b + j * inner, panel, y + j, c_row, adds); });
  const R* last = b + j * inner;  // the last panel, of which a vector or a part of one is left
  if (j + V <= columns) {
    in_tiles([&](int64_t some, const R* x, R* y) { some_rows<R, 1>(some, inner, x, a_row, last, panel, y + j, c_row, adds); });
    j += V, last += V;
  }
  if (j == columns) return;
  in_tiles([&](int64_t some, const R* x, R* y) {
    R part[kTileRows * V];
    for (int64_t r = 0; r < some && adds; ++r) store(part + r * V, load(y + r * c_row + j, columns - j));
    some_rows<R, 1>(some, inner, x, a_row, last, panel, part, V, adds);
    for (int64_t r = 0; r < some; ++r) store(y + r * c_row + j, load(part + r * V), columns - j);
  });
}

template <typename R, int ROWS, int VECTORS>
inline void outer_tile(int64_t inner, const R* a, int64_t a_row, const R* b, int64_t b_row, R* c, int64_t c_row) {
  constexpr int V = kLanes<R>;
  Vector<R> sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
    for (int q = 0; q < VECTORS; ++q) sum[r][q] = load(c + r * c_row + q * V);
  for (int64_t i = 0; i < inner; ++i) {
    Vector<R> v[VECTORS];
    for (int q = 0; q < VECTORS; ++q) v[q] = load(b + i * b_row + q * V);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const Vector<R> x = spread(a[i * a_row + r]);
      for (int q = 0; q < VECTORS; ++q) sum[r][q] += x * v[q];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
    for (int q = 0; q < VECTORS; ++q) store(c + r * c_row + q * V, sum[r][q]);
}

// C [m, some vectors] += A [inner, m]ᵀ B [inner, some vectors].
template <typename R, int VECTORS>
void outer_columns(int64_t m, int64_t inner, const R* a, int64_t a_row, const R* b, int64_t b_row, R* c, int64_t c_row) {
  const int64_t tiles = (m + kTileRows - 1) / kTileRows, height = (m + tiles - 1) / tiles;
  for (int64_t i = 0; i < m; i += height) switch (std::min(height, m - i)) {
#define LONGLAG_CASE(N)                                                                                  \
  case N:                                                                                                \
    if constexpr (N <= kTileRows) outer_tile<R, N, VECTORS>(inner, a + i, a_row, b, b_row, c + i * c_row, c_row); \
    break;
      LONGLAG_CASES(LONGLAG_CASE)
#undef LONGLAG_CASE
    }
}
#undef LONGLAG_CASES

// C [m, n] += A [inner, m]ᵀ B [inner, n].
template <typename R>
void outer(int64_t m, int64_t n, int64_t inner, const R* a, int64_t a_row, const R* b, int64_t b_row, R* c,
           int64_t c_row) {
  constexpr int V = kLanes<R>, P = kPanel<R>, kSome = 64;
  if (m <= 0 || inner <= 0) return;
  int64_t j = 0;
  for (; j + P <= n; j += P) outer_columns<R, 2>(m, inner, a, a_row, b + j, b_row, c + j, c_row);
  for (; j + V <= n; j += V) outer_columns<R, 1>(m, inner, a, a_row, b + j, b_row, c + j, c_row);
  if (j == n) return;
  // The last columns in copies of whole vectors, some rows at a time.
  R right[kSome * V], sums[kTileRows * V];
  for (int64_t i = 0; i < inner; i += kSome) {
    const int64_t some = std::min<int64_t>(kSome, inner - i);
    for (int64_t r = 0; r < some; ++r) store(right + r * V, load(b + (i + r) * b_row + j, n - j));
    for (int64_t k = 0; k < m; k += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, m - k);
      for (int64_t r = 0; r < rows; ++r) store(sums + r * V, load(c + (k + r) * c_row + j, n - j));
      outer_columns<R, 1>(rows, some, a + i * a_row + k, a_row, right, V, sums, V);
      for (int64_t r = 0; r < rows; ++r) store(c + (k + r) * c_row + j, load(sums + r * V), n - j);
    }
  }
}

}  // namespace longlag
