// A model's GPU: how much of it the allocator may take and has taken, whether it still works, memory that
// it copies from and to, and three streams on which a request is copied in, computed and copied out.
//
// Nothing here needs a header of CUDA: c10 has interfaces that every kind of device implements, and what
// they lack is looked up by name. Ordinal -1 is the CPU, on which everything is done at once; tests use
// it. The Rust side is src/ffi.rs; the declarations there must match these.

#include <ATen/core/Tensor.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <dlfcn.h>

#include <algorithm>

#include "text.h"

using bulkhead::guarded;

namespace bulkhead {

inline c10::Device device_of(int ordinal) {
  if (ordinal < 0) return c10::Device(c10::kCPU);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(ordinal));
}

// A function of CUDA's runtime or driver; null if nothing that is loaded has it.
template <typename Function>
Function function_of_cuda(const char* library, const char* name) {
  void* handle = library == nullptr ? RTLD_DEFAULT : dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  return library != nullptr && handle == nullptr
             ? nullptr
             : reinterpret_cast<Function>(dlsym(handle, name));
}

// What the driver says of the whole device; 0 if it cannot be asked.
inline size_t total_by_driver(int ordinal) {
  auto get = function_of_cuda<int (*)(int*, int)>("libcuda.so.1", "cuDeviceGet");
  auto total = function_of_cuda<int (*)(size_t*, int)>("libcuda.so.1", "cuDeviceTotalMem_v2");
  int device = 0;
  size_t bytes = 0;
  if (get == nullptr || total == nullptr || get(&device, ordinal) != 0) return 0;
  return total(&bytes, device) == 0 ? bytes : 0;
}

// One thread uses it, and has `compute` as its current stream from then on.
struct Streams {
  c10::Device device;
  c10::Stream upload;
  c10::Stream compute;
  c10::Stream download;
  c10::Event uploaded;
  c10::Event computed;

  explicit Streams(c10::Device where)
      : device(where),
        upload(fresh(where)),
        compute(fresh(where)),
        download(fresh(where)),
        uploaded(where.type()),
        computed(where.type()) {}

  static c10::Stream fresh(c10::Device where) {
    return c10::impl::getDeviceGuardImpl(where.type())->getNewStream(where);
  }

  bool has_events() const { return device.is_cuda(); }

  void record(c10::Event& event, const c10::Stream& on) {
    if (has_events()) event.record(on);
  }

  void wait(const c10::Stream& who, const c10::Event& event) {
    if (has_events()) event.block(who);
  }
};

}  // namespace bulkhead

using bulkhead::Streams;

extern "C" {

// The allocator computes its limit from what the driver says. Where a limit lies on this process, the
// runtime may tell that one instead; the larger of the two makes the smaller fraction.
char* bulkhead_device_total(int ordinal, uint64_t* total) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(ordinal);
    const size_t told = c10::getDeviceAllocator(c10::kCUDA)->getMemoryInfo(index).second;
    *total = std::max(told, bulkhead::total_by_driver(ordinal));
  });
}

// The allocator reads its settings when it is first used, and a fraction never again.
char* bulkhead_device_settings(const char* settings) {
  return guarded([&] {
    if (c10::getDeviceAllocator(c10::kCUDA)->initialized())
      throw std::runtime_error("the allocator is in use already");
    c10::CachingAllocator::setAllocatorSettings(settings);
  });
}

char* bulkhead_device_peak(int ordinal, uint64_t* peak) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(ordinal);
    const auto stats = c10::getDeviceAllocator(c10::kCUDA)->getDeviceStats(index);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *peak = static_cast<uint64_t>(std::max<int64_t>(stats.reserved_bytes.at(all).peak, 0));
  });
}

char* bulkhead_empty_cuda_cache() {
  return guarded([] { c10::getDeviceAllocator(c10::kCUDA)->emptyCache(); });
}

char* bulkhead_device_synchronize(int ordinal) {
  return guarded([&] {
    if (ordinal < 0) return;
    const auto* device = c10::impl::getDeviceGuardImpl(c10::kCUDA);
    device->synchronizeDevice(static_cast<c10::DeviceIndex>(ordinal));
  });
}

// Pins pages for every device.
char* bulkhead_device_register(const void* start, size_t bytes, bool only_read) {
  return guarded([&] {
    constexpr unsigned kPortable = 0x01;
    constexpr unsigned kReadOnly = 0x08;
    auto pin = bulkhead::function_of_cuda<int (*)(void*, size_t, unsigned)>(nullptr, "cudaHostRegister");
    auto text = bulkhead::function_of_cuda<const char* (*)(int)>(nullptr, "cudaGetErrorString");
    auto forget = bulkhead::function_of_cuda<int (*)()>(nullptr, "cudaGetLastError");
    if (pin == nullptr || text == nullptr || forget == nullptr)
      throw std::runtime_error("CUDA's runtime is not loaded");
    const int error =
        pin(const_cast<void*>(start), bytes, only_read ? kPortable | kReadOnly : kPortable);
    if (error == 0) return;
    // Otherwise whoever looks next takes it for an error of its own.
    forget();
    throw std::runtime_error(text(error));
  });
}

// Waits for what was begun on other streams, since nothing orders it before these.
char* bulkhead_streams_new(int ordinal, Streams** streams) {
  return guarded([&] {
    const auto device = bulkhead::device_of(ordinal);
    const auto* implementation = c10::impl::getDeviceGuardImpl(device.type());
    if (device.is_cuda()) implementation->synchronizeDevice(device.index());
    auto made = std::make_unique<Streams>(device);
    implementation->exchangeStream(made->compute);
    *streams = made.release();
  });
}

void bulkhead_streams_free(Streams* streams) {
  // A destructor that throws has nobody to tell.
  bulkhead::free_text(guarded([&] { delete streams; }));
}

// Begins to copy a tensor whose memory stays as it is until the request was settled.
char* bulkhead_streams_upload(Streams* streams, const at::Tensor* view, at::Tensor** copy) {
  return guarded([&] {
    c10::StreamGuard on(streams->upload);
    const auto options = view->options().device(streams->device);
    *copy = new at::Tensor(view->to(options, /*non_blocking=*/true, /*copy=*/true));
  });
}

// After the last upload of a request.
char* bulkhead_streams_uploaded(Streams* streams) {
  return guarded([&] { streams->record(streams->uploaded, streams->upload); });
}

// Before a request is computed. Its inputs come from the memory of one stream and are used by another,
// so that the allocator must be told: a model may keep them for longer than we do.
char* bulkhead_streams_enter(Streams* streams, at::Tensor* const* inputs, size_t n) {
  return guarded([&] {
    streams->wait(streams->compute, streams->uploaded);
    for (size_t i = 0; i < n; ++i)
      if (inputs[i] != nullptr && inputs[i]->is_cuda()) inputs[i]->record_stream(streams->compute);
  });
}

// After a request was computed, before any of its outputs is copied.
char* bulkhead_streams_leave(Streams* streams) {
  return guarded([&] {
    streams->record(streams->computed, streams->compute);
    streams->wait(streams->download, streams->computed);
  });
}

// Begins to copy an output; both tensors and their memory stay until the request was settled.
char* bulkhead_streams_download(Streams* streams, const at::Tensor* from, at::Tensor* place) {
  return guarded([&] {
    c10::StreamGuard on(streams->download);
    // A sign that is still to be applied would be applied to the place, before the copy has come.
    place->copy_(from->resolve_conj().resolve_neg(), /*non_blocking=*/true);
  });
}

// Everything of the last request that was left is done.
char* bulkhead_streams_settle(Streams* streams) {
  return guarded([&] { streams->download.synchronize(); });
}
}
