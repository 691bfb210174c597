// Steps whose columns do not meet: a strip of columns goes through all steps of a chunk before the
// next strip begins. Its carry and its scratch stay in the first cache, and a thread streams over
// memory that is its own.
#pragma once
#include "loop.h"

namespace longlag {

// Numbers of all buffers of a strip together, which stay in the first cache with what is streamed.
constexpr int64_t kStripBytes = 32768;

template <typename R>
class Strips {
 public:
  // `functions` are those of `list`, what a step does in its order.
  Strips(const Tables& tables, const std::vector<Instruction>& list, const std::vector<RowFunction<R>>& functions,
         const Team& team)
      : t_(tables), list_(list), functions_(functions), width_(list[0].width), rows_(tables.batch),
        buffers_(std::max<int64_t>(1, tables.scratch / width_)),
        most_(std::max<int64_t>(kLine, kStripBytes / (buffers_ * sizeof(R)) / kLine * kLine)),
        memory_(buffers_ * pitch() * sizeof(R)), at_(tables.slot_count) {
    bool flat = true;
    for (const auto& i : list)
      for (int64_t s : {i.to, i.a, i.b, i.c}) flat = flat && is_flat(t_.slots[s]);
    // Rows that lie side by side everywhere are one long row.
    if (flat) width_ *= rows_, rows_ = 1;
    const int64_t lines = (width_ + kLine - 1) / kLine;
    const bool by_rows = rows_ >= team.size();
    first_row_ = by_rows ? team.begin(rows_) : 0;
    last_row_ = by_rows ? team.end(rows_) : rows_;
    first_column_ = by_rows ? 0 : team.begin(lines) * kLine;
    last_column_ = by_rows ? width_ : std::min(width_, team.end(lines) * kLine);
    for (int64_t s = 0; s < t_.slot_count; ++s)
      if (t_.slots[s].step) moving_.push_back(s);
  }

  // All steps of a chunk. `base(slot, k, time)` is the first number of a slot at row 0; a carry is
  // read from `carry_in(c)` and left at `carry_out(c)`.
  template <typename Base, typename In, typename Out>
  void run(int64_t time, int64_t steps, Base base, In carry_in, Out carry_out) {
    const int64_t columns = std::min(last_column_ - first_column_, most_), rows = columns ? most_ / columns : 1;
    for (int64_t r = first_row_; r < last_row_; r += rows)
      for (int64_t c = first_column_; c < last_column_; c += most_)
        run_strip({r, std::min(rows, last_row_ - r), c, std::min(most_, last_column_ - c)}, time, steps, base, carry_in,
                  carry_out);
  }

 private:
  static constexpr int64_t kLine = 64 / sizeof(R);  // numbers of a line of the cache
  struct Strip {
    int64_t row, rows, column, columns;
  };
  struct Call {
    RowFunction<R> f;
    int64_t to, a, b, c, rows, columns;
  };

  // From a buffer to the next: an odd number of lines, since equal ones compete in a cache.
  int64_t pitch() const { return (most_ / kLine | 1) * kLine; }
  bool is_flat(const Slot& slot) const {
    if (t_.batch == 1 || slot.place == kScratch) return true;
    return slot.column ? slot.row == list_[0].width : !slot.row;
  }
  int64_t row_stride(const Slot& slot, const Strip& strip) const { return slot.place == kScratch ? strip.columns : slot.row; }

  template <typename Base, typename In, typename Out>
  void run_strip(const Strip& strip, int64_t time, int64_t steps, Base base, In carry_in, Out carry_out) {
    R* const buffers = static_cast<R*>(memory_.data());
    const int64_t direction = t_.reverse ? -1 : 1, k = t_.reverse ? steps - 1 : 0;
    auto point = [&](int64_t s, int64_t step) {
      const Slot& slot = t_.slots[s];
      at_[s] = slot.place == kScratch ? buffers + slot.index / list_[0].width * pitch()
                                      : base(slot, step, time + step) + strip.row * slot.row + strip.column * slot.column;
    };
    for (int64_t s = 0; s < t_.slot_count; ++s) point(s, k);
    std::vector<Call> calls;
    for (size_t j = 0; j < list_.size(); ++j) {
      const Instruction& i = list_[j];
      bool together = true;
      for (int64_t s : {i.to, i.a, i.b, i.c}) {
        const Slot& slot = t_.slots[s];
        together = together && (slot.column ? row_stride(slot, strip) == strip.columns : !slot.row);
      }
      const int64_t rows = together ? 1 : strip.rows;
      calls.push_back({functions_[j], i.to, i.a, i.b, i.c, rows, strip.columns * (strip.rows / rows)});
    }
    // Carries lie in rows of `list_[0].width`, of which a flat strip takes a part of one long row.
    auto carry = [&](int64_t c, auto f) {
      const int64_t full = rows_ == 1 ? 0 : list_[0].width;
      for (int64_t r = 0; r < strip.rows; ++r)
        f(at_[t_.carries[c].slot] + r * strip.columns, (strip.row + r) * full + strip.column);
    };
    for (int64_t c = 0; c < t_.carry_count; ++c) {
      const R* from = carry_in(c);
      carry(c, [&](R* to, int64_t at) {
        if (from) std::copy_n(from + at, strip.columns, to);
        else std::fill_n(to, strip.columns, R(0));
      });
    }
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t now = k + direction * step;
      // What a step sees of another array one step further on lies elsewhere at the last one.
      if (time + now == (t_.reverse ? 0 : t_.steps - 1))
        for (int64_t s : moving_)
          if (t_.slots[s].place == kBefore) point(s, now);
      for (const Call& i : calls) {
        if (i.rows == 1) {
          i.f(at_[i.to], at_[i.a], at_[i.b], at_[i.c], i.columns, 1);
          continue;
        }
        for (int64_t r = 0; r < i.rows; ++r) {
          auto row = [&](int64_t s) { return at_[s] + r * row_stride(t_.slots[s], strip); };
          i.f(row(i.to), row(i.a), row(i.b), row(i.c), i.columns, 1);
        }
      }
      for (int64_t s : moving_) at_[s] += direction * t_.slots[s].step;
    }
    for (int64_t c = 0; c < t_.carry_count; ++c) {
      R* to = carry_out(c);
      carry(c, [&](const R* from, int64_t at) { std::copy_n(from, strip.columns, to + at); });
    }
    fence();
  }

  const Tables& t_;
  const std::vector<Instruction>& list_;
  const std::vector<RowFunction<R>>& functions_;
  int64_t width_, rows_, buffers_, most_;
  Block memory_;
  int64_t first_row_, last_row_, first_column_, last_column_;
  std::vector<R*> at_;
  std::vector<int64_t> moving_;
};

}  // namespace longlag
