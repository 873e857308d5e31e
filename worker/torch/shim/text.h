// Text that crosses to Rust: every function of the shim answers null for success or an error text
// that the caller gives back to bulkhead_text_free. No C++ exception leaves the shim.
#pragma once

#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

namespace bulkhead {

// Stands in when not even the message can be allocated; never freed.
inline char out_of_memory[] = "out of memory while an error was reported";

inline char* copy_text(const std::string& text) noexcept {
  char* copied = strdup(text.c_str());
  return copied == nullptr ? out_of_memory : copied;
}

inline void free_text(char* text) noexcept {
  if (text != out_of_memory) free(text);
}

// The body of a catch-all handler; reads the exception that is being handled.
inline char* describe_exception() noexcept {
  try {
    try {
      throw;
    } catch (const c10::OutOfMemoryError& error) {
      return copy_text(std::string("out of memory: ") + error.what_without_backtrace());
    } catch (const c10::Error& error) {
      return copy_text(error.what_without_backtrace());
    } catch (const std::bad_alloc&) {
      return copy_text("out of memory: std::bad_alloc");
    } catch (const std::exception& error) {
      return copy_text(error.what());
    } catch (...) {
      return copy_text("an exception that is not a std::exception");
    }
  } catch (...) {
    return out_of_memory;
  }
}

template <typename Body>
char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (...) {
    return describe_exception();
  }
}

}  // namespace bulkhead
