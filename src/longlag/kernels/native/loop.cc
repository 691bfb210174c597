// The loop over time. See `docs/design/kernels.md` for one cell on its way here.
#include "loop.h"

#include "strips.h"

#include <sys/mman.h>

#include <optional>

namespace longlag {

namespace {

std::mutex& pool_mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}
std::vector<std::pair<size_t, void*>>& pool() {
  static auto* pool = new std::vector<std::pair<size_t, void*>>;
  return *pool;
}
constexpr size_t kPooledBlocks = 16;

// Rows of a chunk, about: enough for products at full speed, and few enough to stay in the cache.
constexpr int64_t kRows = 256;
// Numbers of a tile that elementwise operations take one after another, so that it stays in L1.
constexpr int64_t kTile = 2048;

int64_t widest(const Tables& t) {
  int64_t most = 1;
  for (const auto& i : t.parts[kStep])
    if (i.code != kProduct) most = std::max(most, i.width);
  return most;
}

template <typename R>
int64_t packed_numbers(const Tables& t) {
  int64_t total = 0;
  for (int64_t k = 0; k < t.kernel_count; ++k) total += packed_size<R>(t.kernels[k].rows, t.kernels[k].columns);
  return total;
}

int64_t steps_of_a_chunk(const Tables& t) {
  if (t.parts[kEarly].empty() && t.parts[kLate].empty() && t.parts[kSum].empty()) return std::max<int64_t>(1, t.steps);
  return std::max<int64_t>(1, std::min(t.steps, kRows / std::max<int64_t>(t.batch, 1)));
}

}  // namespace

Block::Block(int64_t bytes) : data_(nullptr), bytes_(std::max<int64_t>(bytes, 64)) {
  {
    std::lock_guard<std::mutex> lock(pool_mutex());
    auto& free = pool();
    for (size_t i = 0; i < free.size(); ++i)
      if (free[i].first >= bytes_ && free[i].first <= 2 * bytes_ + 4096) {
        std::tie(bytes_, data_) = free[i];
        free.erase(free.begin() + i);
        return;
      }
  }
  if (posix_memalign(&data_, 64, bytes_)) std::abort();
}
Block::~Block() {
  std::lock_guard<std::mutex> lock(pool_mutex());
  auto& free = pool();
  free.emplace_back(bytes_, data_);
  if (free.size() > kPooledBlocks) {
    std::free(free.front().second);
    free.erase(free.begin());
  }
}

// What a member sees: its rows, its scratch, and where each slot is now.
template <typename R>
struct Loop<R>::Member {
  const Loop& loop;
  const Tables& t;
  Team& team;
  const int64_t from, rows;  // of the batch
  Block memory;
  std::vector<Tile<R>> tiles;
  std::vector<int64_t> moving;
  R* chunk = nullptr;

  Member(const Loop& loop, Team& team)
      : loop(loop),
        t(loop.t_),
        team(team),
        from(team.begin(t.batch)),
        rows(team.end(t.batch) - from),
        memory(t.columnwise ? 0 : t.scratch * rows * sizeof(R)),
        tiles(t.slot_count) {
    for (int64_t s = 0; s < t.slot_count; ++s) {
      point(s, 0, 0);
      if (t.slots[s].step) moving.push_back(s);
    }
  }

  // The first number of step `k` of the chunk, step `time` of all, at row 0 of the batch.
  R* base(const Slot& slot, int64_t k, int64_t time) const {
    switch (slot.place) {
      case kChunk:
        return chunk + slot.index * t.batch * loop.chunk_steps_ + k * slot.step + slot.shift;
      case kArgument:
        return loop.in_[slot.index] + time * slot.step + slot.shift;
      case kResult:
        return loop.out_[slot.index] + time * slot.step + slot.shift;
      default: {
        const int64_t next = t.reverse ? time - 1 : time + 1;
        const bool last = next < 0 || next >= t.steps;
        return (last ? loop.in_[slot.entry] : loop.in_[slot.index] + next * slot.step) + slot.shift;
      }
    }
  }

  // Lets a slot show the member's rows at a step.
  void point(int64_t s, int64_t k, int64_t time) {
    const Slot& slot = t.slots[s];
    R* at = slot.place == kScratch ? static_cast<R*>(memory.data()) + slot.index * rows + slot.shift
                                   : base(slot, k, time) + from * slot.row;
    tiles[s] = {at, slot.row, slot.column};
  }

  void run_step(const Instruction& i, RowFunction<R> f, int64_t first, int64_t some) {
    auto at = [&](int64_t s) {
      Tile<R> tile = tiles[s];
      tile.at += first * tile.row;
      return tile;
    };
    if (i.code == kProduct) {
      const Tile<R> to = at(i.to), a = at(i.a);
      product(some, i.width, i.inner, a.at, a.row, loop.kernels_[i.kernel], to.at, to.row, i.adds);
    } else {
      operate(f, at(i.to), at(i.a), at(i.b), at(i.c), some, i.width, i.inner);
    }
  }

  // Instructions of one step on the member's rows, elementwise ones tile by tile.
  void run_rows(Part part) {
    const auto& list = t.parts[part];
    const auto& functions = loop.functions_[part];
    for (size_t i = 0; i < list.size();) {
      size_t end = i + 1;
      if (list[i].code == kProduct) {
        run_step(list[i], functions[i], 0, rows);
      } else {
        while (end < list.size() && list[end].code != kProduct) ++end;
        for (int64_t r = 0; r < rows; r += loop.block_)
          for (size_t j = i; j < end; ++j) run_step(list[j], functions[j], r, std::min(loop.block_, rows - r));
      }
      i = end;
    }
  }

  void begin_carries() {
    for (int64_t c = 0; c < t.carry_count; ++c) {
      const Carry& carry = t.carries[c];
      R* to = tiles[carry.slot].at;
      if (carry.argument < 0) std::fill_n(to, rows * carry.width, R(0));
      else std::copy_n(loop.in_[carry.argument] + from * carry.width, rows * carry.width, to);
    }
  }
  void end_carries() {
    for (int64_t c = 0; c < t.carry_count; ++c) {
      const Carry& carry = t.carries[c];
      std::copy_n(tiles[carry.slot].at, rows * carry.width, loop.out_[carry.result] + from * carry.width);
    }
  }

  // The steps of a chunk, one after another, on the member's own rows.
  void run_steps(int64_t time, int64_t steps) {
    for (int64_t step = 0; step < steps && rows; ++step) {
      const int64_t k = t.reverse ? steps - 1 - step : step;
      for (int64_t s : moving) point(s, k, time + k);
      run_rows(kStep);
      run_rows(kCarry);
    }
  }

  // The steps of a chunk where columns do not meet. Between chunks a carry lies in its result.
  void run_strips(Strips<R>& strips, int64_t time, int64_t steps, bool first) {
    strips.run(
        time, steps, [&](const Slot& slot, int64_t k, int64_t time) { return base(slot, k, time); },
        [&](int64_t c) -> const R* {
          const Carry& carry = t.carries[c];
          if (!first) return loop.out_[carry.result];
          return carry.argument < 0 ? nullptr : loop.in_[carry.argument];
        },
        [&](int64_t c) { return loop.out_[t.carries[c].result]; });
  }

  // Calls `f(rows, tile of a slot)` for ranges of the rows of a chunk, [begin, end), in which the
  // rows of all slots lie one after another.
  template <typename F>
  void for_ranges(std::initializer_list<int64_t> slots, int64_t begin, int64_t end, int64_t time,
                  int64_t steps, F f) {
    bool cyclic = false;
    int64_t border = -1;
    for (int64_t s : slots) {
      const Slot& slot = t.slots[s];
      if (!slot.step && slot.row) cyclic = true;
      if (slot.place == kBefore && t.reverse && time == 0) border = t.batch;
      if (slot.place == kBefore && !t.reverse && time + steps == t.steps) border = (steps - 1) * t.batch;
    }
    for (int64_t at = begin; at < end;) {
      int64_t stop = end;
      if (cyclic) stop = std::min(stop, (at / t.batch + 1) * t.batch);
      if (at < border) stop = std::min(stop, border);
      const int64_t k = at / t.batch, row = at - k * t.batch;
      f(stop - at, [&](int64_t s) {
        const Slot& slot = t.slots[s];
        return Tile<R>{base(slot, k, time + k) + row * slot.row, slot.row, slot.column};
      });
      at = stop;
    }
  }

  // Instructions on the member's part of all rows of a chunk.
  void run_chunk(Part part, int64_t time, int64_t steps) {
    const int64_t begin = team.begin(steps * t.batch), end = team.end(steps * t.batch);
    for (size_t j = 0; j < t.parts[part].size(); ++j) {
      const Instruction& i = t.parts[part][j];
      for_ranges({i.to, i.a, i.b, i.c}, begin, end, time, steps, [&](int64_t some, auto tile) {
        const Tile<R> to = tile(i.to), a = tile(i.a);
        if (i.code == kProduct)
          product(some, i.width, i.inner, a.at, a.row, loop.kernels_[i.kernel], to.at, to.row, i.adds);
        else
          operate(loop.functions_[part][j], to, a, tile(i.b), tile(i.c), some, i.width, i.inner);
      });
    }
  }

  // Sums over all rows of a chunk; members share the numbers of a sum.
  void run_sums(const std::vector<Instruction>& list, int64_t time, int64_t steps) {
    for (const auto& i : list) {
      R* total = loop.out_[i.c] + i.adds;
      const bool outer_product = i.code == kOuter;
      const int64_t count = outer_product ? i.inner : i.width;
      const int64_t begin = team.begin(count), some = team.end(count) - begin;
      if (!some) continue;
      for_ranges({i.a, i.b}, 0, steps * t.batch, time, steps, [&](int64_t rows, auto tile) {
        const Tile<R> a = tile(i.a), b = tile(i.b);
        if (outer_product)
          outer(some, i.width, rows, a.at + begin, a.row, b.at, b.row, total + begin * i.stride, i.stride);
        else
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = begin; j < begin + some; ++j) total[j] += a.at[r * a.row + j];
      });
    }
  }
};

template <typename R>
Loop<R>::Loop(const Tables& tables, std::vector<R*> in, std::vector<R*> out)
    : t_(tables),
      in_(std::move(in)),
      out_(std::move(out)),
      chunk_steps_(steps_of_a_chunk(tables)),
      block_(std::max<int64_t>(1, kTile / widest(tables))),
      packed_(packed_numbers<R>(tables) * sizeof(R)),
      chunk_(2 * tables.chunk * tables.batch * chunk_steps_ * sizeof(R)) {
  R* to = static_cast<R*>(packed_.data());
  for (int64_t k = 0; k < t_.kernel_count; ++k) {
    const Kernel& kernel = t_.kernels[k];
    kernels_.push_back(to);
    pack(in_[kernel.argument] + kernel.offset, kernel.row_stride, kernel.column_stride, kernel.rows, kernel.columns, to);
    to += packed_size<R>(kernel.rows, kernel.columns);
  }
  for (int64_t part = 0; part < 5; ++part)
    for (const auto& i : t_.parts[part])
      functions_[part].push_back(
          row_function<R>(i.code, t_.slots[i.a].column, t_.slots[i.b].column, t_.slots[i.c].column));
  if (t_.columnwise)
    for (int64_t part : {kStep, kCarry}) {
      step_.insert(step_.end(), t_.parts[part].begin(), t_.parts[part].end());
      step_functions_.insert(step_functions_.end(), functions_[part].begin(), functions_[part].end());
    }
  for (const auto& [result, size] : t_.totals) std::fill_n(out_[result], size, R(0));
}

void ask_for_huge_pages(void* data, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t to = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kPage - 1);
  if (to > from + kPage) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

template <typename R>
void Loop<R>::run(Team& team) {
  Member me(*this, team);
  std::optional<Strips<R>> strips;
  if (t_.columnwise) strips.emplace(t_, step_, step_functions_, team);
  else me.begin_carries();
  const auto &early = t_.parts[kEarly], &late = t_.parts[kLate], &sums = t_.parts[kSum];
  const int64_t chunk = t_.chunk * t_.batch * chunk_steps_;
  int64_t turn = 0;
  for (int64_t done = 0; done < t_.steps; ++turn) {
    const int64_t steps = std::min(chunk_steps_, t_.steps - done);
    const int64_t time = t_.reverse ? t_.steps - done - steps : done;
    // Two chunks in turns: a member may begin the next while another still reads this one.
    me.chunk = static_cast<R*>(chunk_.data()) + (turn & 1) * chunk;
    if (!early.empty()) {
      me.run_chunk(kEarly, time, steps);
      team.meet();
    }
    if (strips) me.run_strips(*strips, time, steps, done == 0);
    else me.run_steps(time, steps);
    if (!late.empty() || !sums.empty()) team.meet();
    me.run_chunk(kLate, time, steps);
    if (!late.empty() && !sums.empty()) team.meet();
    me.run_sums(sums, time, steps);
    done += steps;
  }
  if (!strips) me.end_carries();
}

template class Loop<float>;
template class Loop<double>;

}  // namespace longlag
