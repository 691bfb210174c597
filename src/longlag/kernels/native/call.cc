// What XLA calls.
#include "loop.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Numbers = ffi::Span<const int64_t>;

template <typename T>
const T* as(const Numbers& numbers) {
  return reinterpret_cast<const T*>(numbers.begin());
}
template <typename T>
int64_t count(const Numbers& numbers) {
  return numbers.size() * sizeof(int64_t) / sizeof(T);
}

// What a thread does in some ten microseconds, about what it takes to come. For less, none is asked.
constexpr int64_t kWork = 1 << 18;

// Numbers that the elementwise operations make, and that the products multiply.
int64_t work(const longlag::Tables& tables) {
  int64_t numbers = 0;
  for (const auto& part : tables.parts)
    for (const auto& i : part) {
      const bool product = i.code == longlag::kProduct || i.code == longlag::kOuter;
      numbers += i.width * (product ? i.inner : 1);
    }
  return numbers * tables.batch * tables.steps;
}

template <typename R>
ffi::Error run(ffi::ThreadPool& pool, const longlag::Tables& tables, ffi::RemainingArgs& args,
               ffi::RemainingRets& results) {
  std::vector<R*> in, out;
  for (size_t i = 0; i < args.size(); ++i) in.push_back(static_cast<R*>(args.get<ffi::AnyBuffer>(i)->untyped_data()));
  for (size_t i = 0; i < results.size(); ++i) {
    ffi::Result<ffi::AnyBuffer> result = results.get<ffi::AnyBuffer>(i).value();
    longlag::ask_for_huge_pages(result->untyped_data(), result->size_bytes());
    out.push_back(static_cast<R*>(result->untyped_data()));
  }
  longlag::Loop<R> loop(tables, std::move(in), std::move(out));
  int64_t threads = std::min<int64_t>(pool.num_threads(), work(tables) / kWork);
  if (const char* set = std::getenv("LONGLAG_KERNEL_THREADS")) threads = std::atoll(set);
  longlag::together(pool, static_cast<int>(std::max<int64_t>(1, threads)), [&](longlag::Team& team) { loop.run(team); });
  return ffi::Error::Success();
}

}  // namespace

// header: steps, batch, scratch, chunk, reverse, columnwise, whether numbers are double.
static ffi::Error call(ffi::ThreadPool pool, Numbers header, Numbers instructions, Numbers slots, Numbers kernels,
                       Numbers carries, Numbers totals, ffi::RemainingArgs args, ffi::RemainingRets results) {
  const int64_t* h = header.begin();
  longlag::Tables tables{h[0], h[1], h[2], h[3], h[4], h[5] && h[0], {}, as<longlag::Slot>(slots), count<longlag::Slot>(slots),
                         as<longlag::Kernel>(kernels), count<longlag::Kernel>(kernels), as<longlag::Carry>(carries),
                         count<longlag::Carry>(carries), {}};
  const auto* list = as<longlag::Instruction>(instructions);
  for (int64_t i = 0; i < count<longlag::Instruction>(instructions); ++i) {
    longlag::Instruction one = list[i];
    const int operands = longlag::operands(one.code);
    // Operands that a code does not have repeat the first.
    if (one.code != longlag::kOuter && operands < 2) one.b = one.a;
    if (one.part != longlag::kSum && operands < 3) one.c = one.a;
    tables.parts[one.part].push_back(one);
  }
  for (size_t i = 0; i + 1 < totals.size(); i += 2) tables.totals.emplace_back(totals[i], totals[i + 1]);
  return h[6] ? run<double>(pool, tables, args, results) : run<float>(pool, tables, args, results);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(longlag_loop, call,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Numbers>("header")
                                  .Attr<Numbers>("instructions")
                                  .Attr<Numbers>("slots")
                                  .Attr<Numbers>("kernels")
                                  .Attr<Numbers>("carries")
                                  .Attr<Numbers>("totals")
                                  .RemainingArgs()
                                  .RemainingRets());
