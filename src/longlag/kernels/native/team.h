// A few threads that do one thing together and meet at barriers: XLA's own, and the caller.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

namespace longlag {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Team {
 public:
  Team(int member, int size, std::atomic<int64_t>* arrived) : member_(member), size_(size), arrived_(arrived) {}

  int member() const { return member_; }
  int size() const { return size_; }

  // Waits for all. What they have written before, all can read after.
  void meet() {
    if (size_ == 1) return;
    const int64_t all = ++meetings_ * size_;
    arrived_->fetch_add(1, std::memory_order_acq_rel);
    for (int spins = 0; arrived_->load(std::memory_order_acquire) < all; ++spins)
      if (spins < 4000) relax();
      else std::this_thread::yield();
  }

  // The part of `count` things that falls to this member.
  int64_t begin(int64_t count) const { return count * member_ / size_; }
  int64_t end(int64_t count) const { return count * (member_ + 1) / size_; }

 private:
  int member_, size_;
  int64_t meetings_ = 0;
  std::atomic<int64_t>* arrived_;
};

// Calls `work(team)` on the caller and on the threads of `pool` that come within microseconds. A
// thread that comes later finds the gate closed, so nobody waits for one that never comes.
template <typename Pool, typename F>
void together(Pool& pool, int wanted, const F& work) {
  constexpr int kClosed = 1 << 30, kPatience = 20000;
  struct State {
    std::atomic<int> gate{0}, size{0}, at_work{0};
    std::atomic<int64_t> arrived{0};
    const F* work;
  };
  auto state = std::make_shared<State>();
  state->work = &work;
  auto help = [state] {
    int seen = state->gate.load();
    do {
      if (seen & kClosed) return;
    } while (!state->gate.compare_exchange_weak(seen, seen + 1));
    int size;
    for (int spins = 0; !(size = state->size.load(std::memory_order_acquire)); ++spins)
      if (spins < kPatience) relax();
      else std::this_thread::yield();
    Team team(seen + 1, size, &state->arrived);
    (*state->work)(team);
    state->at_work.fetch_sub(1, std::memory_order_release);
  };
  for (int i = 1; i < wanted; ++i) {
    auto task = help;
    pool.Schedule(std::move(task));
  }
  for (int spins = 0; spins < kPatience && state->gate.load() < wanted - 1; ++spins) relax();
  const int joined = state->gate.fetch_or(kClosed);
  state->at_work = joined;
  state->size.store(joined + 1, std::memory_order_release);
  Team team(0, joined + 1, &state->arrived);
  work(team);
  for (int spins = 0; state->at_work.load(std::memory_order_acquire) > 0; ++spins)
    if (spins < 4000) relax();
    else std::this_thread::yield();
}

}  // namespace longlag
