// The tables of a loop, as `schedule.py` writes them, and the loop.
#pragma once
#include <cstdlib>
#include <mutex>
#include <vector>

#include "operations.h"
#include "products.h"
#include "team.h"

namespace longlag {

enum Place : int64_t { kScratch, kChunk, kArgument, kResult, kBefore };
enum Part : int64_t { kEarly, kStep, kLate, kSum, kCarry };

struct Slot {
  int64_t place;   // scratch of a step, kept for a chunk, argument, result, argument one step further on
  int64_t index;   // the argument or result, or the first column in scratch or chunk
  int64_t entry;   // of `kBefore`: the argument that stands there at the last step
  int64_t row;     // stride from a row to the next
  int64_t column;  // 1, or 0 where one number stands for all columns
  int64_t step;    // stride from a step to the next
  int64_t shift;   // of the first column
};

struct Instruction {
  int64_t code, part, width;
  int64_t to, a, b, c;  // slots; of a sum `c` is its result
  int64_t inner;        // of a product: what is summed over; of a reduction: the size of a part; of `outer`: rows of the sum
  int64_t kernel;       // of a product
  int64_t stride;       // of `outer`: from a row of the sum to the next
  int64_t adds;         // of a product: it is added to what is there. Of a sum: where it begins
};

struct Kernel {
  int64_t argument, offset, row_stride, column_stride, rows, columns;
};

struct Carry {
  int64_t slot, argument, result, width;  // `argument` -1: it begins as zeros
};

struct Tables {
  int64_t steps, batch, scratch, chunk, reverse;
  int64_t columnwise;  // no column of a step meets another: see `strips.h`
  std::vector<Instruction> parts[5];
  const Slot* slots;
  int64_t slot_count;
  const Kernel* kernels;
  int64_t kernel_count;
  const Carry* carries;
  int64_t carry_count;
  std::vector<std::pair<int64_t, int64_t>> totals;  // result and size
};

// Memory that is used again by the next call, since fresh pages cost as much as what is written.
class Block {
 public:
  explicit Block(int64_t bytes);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  void* data() const { return data_; }

 private:
  void* data_;
  size_t bytes_;
};

// Fewer page faults for a large result whose pages are fresh.
void ask_for_huge_pages(void* data, size_t bytes);

template <typename R>
class Loop {
 public:
  Loop(const Tables& tables, std::vector<R*> in, std::vector<R*> out);
  // Runs all steps. Members share the rows in the steps, and what is done for a chunk at once.
  void run(Team& team);

 private:
  struct Member;

  const Tables& t_;
  std::vector<R*> in_, out_;
  std::vector<R*> kernels_;
  std::vector<RowFunction<R>> functions_[5];  // of `parts`
  std::vector<Instruction> step_;             // of a columnwise step, all that it does
  std::vector<RowFunction<R>> step_functions_;
  int64_t chunk_steps_, block_;
  Block packed_, chunk_;
};

}  // namespace longlag
