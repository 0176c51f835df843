// What a plain C++ program does an event: construct the particles, cluster them, sort the jets. No reading, no
// writing in the time that is printed.
//
// plain INPUT OUTPUT RADIUS PT_MIN: anti-kt; the columns are px py pz E of the two leading jets.

#include "events.hh"

#include <fastjet/ClusterSequence.hh>

int main(int argc, char **argv) {
  require(argc == 5, "plain INPUT OUTPUT RADIUS PT_MIN");
  const fastjet::JetDefinition definition(fastjet::antikt_algorithm, std::atof(argv[3]));
  const double pt_min = std::atof(argv[4]);
  fastjet::ClusterSequence::set_fastjet_banner_stream(nullptr);
  std::vector<fastjet::PseudoJet> particles;

  measure(argv[1], argv[2], 4, [&](const double *begin, const double *end, double *values) {
    particles.clear();
    for (const double *p = begin; p < end; p += 4) particles.emplace_back(p[0], p[1], p[2], p[3]);
    const fastjet::ClusterSequence sequence(particles, definition);
    const auto jets = fastjet::sorted_by_pt(sequence.inclusive_jets(pt_min));
    for (std::size_t k = 0; k < jets.size() && k < 2; ++k)
      for (int c = 0; c < 4; ++c) values[4 * k + c] = jets[k][c];
  });
}
