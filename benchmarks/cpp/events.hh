// Events in, values out: what the reference programs share.
//
// Input:  int64 n_events, int64 offsets[n_events + 1], float64 momenta[offsets[n_events]][4] (px py pz E, GeV).
// Output: float64 values[n_events][2][n_columns], NaN where an event has no such jet.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <vector>

struct Events {
  std::vector<std::int64_t> offsets;
  std::vector<double> momenta;

  std::size_t size() const { return offsets.size() - 1; }
};

inline void require(bool holds, const char *what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

template <typename T> void read_all(std::FILE *file, std::vector<T> &values) {
  require(std::fread(values.data(), sizeof(T), values.size(), file) == values.size(), "short input");
}

inline Events read_events(const char *path) {
  std::FILE *file = std::fopen(path, "rb");
  require(file, "no input");
  std::vector<std::int64_t> n_events(1);
  read_all(file, n_events);
  Events events;
  events.offsets.resize(n_events[0] + 1);
  read_all(file, events.offsets);
  events.momenta.resize(4 * events.offsets.back());
  read_all(file, events.momenta);
  std::fclose(file);
  return events;
}

inline double cpu_seconds() {
  std::timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Calls work(begin, end, values) for the momenta of each event, where `values` has room for two jets; prints the
// CPU seconds of that loop alone and writes the values.
template <typename Work> void measure(const char *input, const char *output, int n_columns, Work work) {
  const Events events = read_events(input);
  std::vector<double> values(events.size() * 2 * n_columns, std::numeric_limits<double>::quiet_NaN());
  const double began = cpu_seconds();
  for (std::size_t event = 0; event < events.size(); ++event)
    work(&events.momenta[4 * events.offsets[event]], &events.momenta[4 * events.offsets[event + 1]],
         &values[event * 2 * n_columns]);
  std::printf("%.9f\n", cpu_seconds() - began);
  std::FILE *file = std::fopen(output, "wb");
  require(file && std::fwrite(values.data(), sizeof(double), values.size(), file) == values.size(), "no output");
  std::fclose(file);
}
