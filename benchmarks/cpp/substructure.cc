// What a plain C++ program does an event for the quantities of lhcq's full features, with fjcontrib as its authors
// document it: cluster, then N-subjettiness, soft drop and energy correlators of the two leading jets. No reading, no
// writing in the time that is printed. What can be had without computing it twice is: the two subjets are the axes of
// tau2, and C2 and D2 share their correlators.
//
// substructure INPUT OUTPUT RADIUS PT_MIN: anti-kt; the columns are px py pz E, tau1 to tau4, m_sd, z_g, width, z1,
// z2, c2, d2 of the two leading jets.

#include "events.hh"

#include <algorithm>
#include <cmath>
#include <fastjet/ClusterSequence.hh>
#include <fastjet/contrib/EnergyCorrelator.hh>
#include <fastjet/contrib/Nsubjettiness.hh>
#include <fastjet/contrib/SoftDrop.hh>

using namespace fastjet::contrib;

int main(int argc, char **argv) {
  require(argc == 5, "substructure INPUT OUTPUT RADIUS PT_MIN");
  const double radius = std::atof(argv[3]), pt_min = std::atof(argv[4]);
  const fastjet::JetDefinition definition(fastjet::antikt_algorithm, radius);
  fastjet::ClusterSequence::set_fastjet_banner_stream(nullptr);

  const UnnormalizedMeasure measure_definition(1.0);
  const Nsubjettiness tau1(1, KT_Axes(), measure_definition), tau2(2, KT_Axes(), measure_definition),
      tau3(3, KT_Axes(), measure_definition), tau4(4, KT_Axes(), measure_definition);
  const SoftDrop soft_drop(0.0, 0.1, radius);
  const EnergyCorrelator ecf1(1, 1.0, EnergyCorrelator::pt_R), ecf2(2, 1.0, EnergyCorrelator::pt_R),
      ecf3(3, 1.0, EnergyCorrelator::pt_R);
  std::vector<fastjet::PseudoJet> particles;

  measure(argv[1], argv[2], 15, [&](const double *begin, const double *end, double *values) {
    particles.clear();
    for (const double *p = begin; p < end; p += 4) particles.emplace_back(p[0], p[1], p[2], p[3]);
    const fastjet::ClusterSequence sequence(particles, definition);
    const auto jets = fastjet::sorted_by_pt(sequence.inclusive_jets(pt_min));
    for (std::size_t k = 0; k < jets.size() && k < 2; ++k) {
      const fastjet::PseudoJet &jet = jets[k];
      double *out = values + 15 * k;
      for (int c = 0; c < 4; ++c) out[c] = jet[c];

      out[4] = tau1(jet);
      out[5] = tau2(jet);
      const auto axes = fastjet::sorted_by_pt(tau2.currentAxes());
      out[6] = tau3(jet);
      out[7] = tau4(jet);

      const fastjet::PseudoJet groomed = soft_drop(jet);
      const bool split = groomed.structure_of<SoftDrop>().has_substructure();
      out[8] = std::sqrt(std::max(groomed.m2(), 0.0));
      out[9] = split ? groomed.structure_of<SoftDrop>().symmetry() : 0.0;

      double sum = 0.0, total = 0.0;
      const auto constituents = jet.constituents();
      for (const auto &particle : constituents) {
        sum += particle.pt() * particle.delta_R(jet);
        total += particle.pt();
      }
      out[10] = sum / total;
      const bool two = constituents.size() > 1;
      out[11] = two ? axes[0].pt() / jet.pt() : 1.0;
      out[12] = two ? axes[1].pt() / jet.pt() : 0.0;

      const double e1 = ecf1(jet), e2 = ecf2(jet) / (e1 * e1), e3 = ecf3(jet) / (e1 * e1 * e1);
      out[13] = e2 > 0 ? e3 / (e2 * e2) : 0.0;
      out[14] = e2 > 0 ? e3 / (e2 * e2 * e2) : 0.0;
    }
  });
}
