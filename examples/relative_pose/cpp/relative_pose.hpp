// The motion of the camera between two images, from one feature_frontend_msgs/Matches: the same steps as in ../pose.py.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "feature_frontend_msgs/msg/matches.hpp"

namespace relative_pose {

using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

// x1 ~ rotation * x0 + s * direction, s > 0, of a point in the optical frames of image 0 and 1; a single camera does not determine s.
struct Pose {
  Matrix rotation{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  Vector direction{};
};

struct Rays {
  std::vector<Vector> of0, of1;
  double px = 0;  // size of a pixel on the normalised plane: 1 / focal length
};

inline double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

inline Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// a + factor * b
inline Vector plus(const Vector& a, double factor, const Vector& b) {
  return {a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2]};
}

inline Vector times(const Matrix& m, const Vector& v) { return {dot(m[0], v), dot(m[1], v), dot(m[2], v)}; }

inline Matrix transposed(const Matrix& m) {
  return {{{m[0][0], m[1][0], m[2][0]}, {m[0][1], m[1][1], m[2][1]}, {m[0][2], m[1][2], m[2][2]}}};
}

inline Vector unit(const Vector& v) { return plus({0, 0, 0}, 1 / std::sqrt(dot(v, v)), v); }

// Rotation about v by |v| rad, multiplied by `matrix`.
inline Matrix turned(const Vector& v, const Matrix& matrix) {
  const double angle = std::max(std::sqrt(dot(v, v)), 1e-300);
  const Vector axis = plus({0, 0, 0}, 1 / angle, v);
  Matrix columns = transposed(matrix);
  for (Vector& column : columns) {
    const Vector across = cross(axis, column);
    column = plus(plus(column, std::sin(angle), across), 1 - std::cos(angle), cross(axis, across));
  }
  return transposed(columns);
}

// Matches with rays that the epipolar check accepts; all matches with rays if it is off.
inline Rays rays_of(const feature_frontend_msgs::msg::Matches& message) {
  Rays rays;
  const auto &n0 = message.normalized_keypoints0, &n1 = message.normalized_keypoints1;
  const bool has_image0 = message.run_id0 != 0, has_check = !message.inlier.empty();
  if (!has_image0 || n0.size() != 2 * message.count || n1.size() != 2 * message.count) return rays;
  const double big = std::numeric_limits<double>::infinity();
  double least[4] = {big, big, big, big}, most[4] = {-big, -big, -big, -big};
  for (std::size_t i = 0; i < message.count; ++i) {
    const double x0 = n0[2 * i], y0 = n0[2 * i + 1], x1 = n1[2 * i], y1 = n1[2 * i + 1];
    if (!std::isfinite(x0 + y0 + x1 + y1) || (has_check && !message.inlier[i])) continue;
    rays.of0.push_back({x0, y0, 1});
    rays.of1.push_back({x1, y1, 1});
    const double values[4] = {x1, y1, message.keypoints1[2 * i], message.keypoints1[2 * i + 1]};
    for (int k = 0; k < 4; ++k) {
      least[k] = std::min(least[k], values[k]);
      most[k] = std::max(most[k], values[k]);
    }
  }
  rays.px = (most[0] - least[0] + most[1] - least[1]) / (most[2] - least[2] + most[3] - least[3]);
  return rays;
}

// Sampson distances on the normalised plane.
inline std::vector<double> distances(const Pose& pose, const Rays& rays) {
  const Matrix back = transposed(pose.rotation);
  std::vector<double> result(rays.of0.size());
  for (std::size_t i = 0; i < result.size(); ++i) {
    const Vector line1 = cross(pose.direction, times(pose.rotation, rays.of0[i]));
    const Vector line0 = times(back, cross(rays.of1[i], pose.direction));
    result[i] = dot(rays.of1[i], line1) / std::sqrt(line1[0] * line1[0] + line1[1] * line1[1] + line0[0] * line0[0] +
                                                    line0[1] * line0[1]);
  }
  return result;
}

// Solves a 5x5 system by elimination; the last column is the right-hand side.
inline std::array<double, 5> solved(std::array<std::array<double, 6>, 5> m) {
  for (int i = 0; i < 5; ++i) {
    int pivot = i;
    for (int j = i + 1; j < 5; ++j) pivot = std::abs(m[j][i]) > std::abs(m[pivot][i]) ? j : pivot;
    std::swap(m[i], m[pivot]);
    for (int j = 0; j < 5; ++j) {
      if (j == i) continue;
      const double factor = m[j][i] / m[i][i];
      for (int k = i; k < 6; ++k) m[j][k] -= factor * m[i][k];
    }
  }
  std::array<double, 5> x{};
  for (int i = 0; i < 5; ++i) x[i] = m[i][5] / m[i][i];
  return x;
}

// Robust least squares, started from a direction without rotation; returns the cost and the motion.
inline std::pair<double, Pose> refined(const Vector& start, const Rays& rays) {
  constexpr double step = 1e-6;
  Pose pose;
  pose.direction = unit(start);
  for (const double tolerance_px : {32, 16, 8, 4, 2, 1, 1, 1, 1}) {
    const double scale = tolerance_px * rays.px;
    const Vector& t = pose.direction;
    const Vector side = unit(cross(t, std::abs(t[0]) < 0.6 ? Vector{1, 0, 0} : Vector{0, 1, 0}));
    const Vector other = cross(t, side);
    std::array<Pose, 5> moved{pose, pose, pose, pose, pose};
    for (int k = 0; k < 3; ++k) moved[k].rotation = turned({step * (k == 0), step * (k == 1), step * (k == 2)}, pose.rotation);
    moved[3].direction = plus(t, step, side);
    moved[4].direction = plus(t, step, other);
    const std::vector<double> here = distances(pose, rays);
    std::array<std::vector<double>, 5> there;
    for (int k = 0; k < 5; ++k) there[k] = distances(moved[k], rays);

    std::array<std::array<double, 6>, 5> system{};
    for (std::size_t i = 0; i < here.size(); ++i) {
      const double r = here[i] / scale, weight = 1 / ((1 + r * r) * (1 + r * r));
      std::array<double, 5> slope{};
      for (int k = 0; k < 5; ++k) slope[k] = (there[k][i] / scale - r) / step;
      for (int k = 0; k < 5; ++k) {
        for (int l = 0; l < 5; ++l) system[k][l] += weight * slope[k] * slope[l];
        system[k][5] -= weight * slope[k] * r;
      }
    }
    double trace = 0;
    for (int k = 0; k < 5; ++k) trace += system[k][k];
    for (int k = 0; k < 5; ++k) system[k][k] += 1e-9 * trace;
    const std::array<double, 5> x = solved(system);
    pose.rotation = turned({x[0], x[1], x[2]}, pose.rotation);
    pose.direction = unit(plus(plus(t, x[3], side), x[4], other));
  }
  double cost = 0;
  for (const double distance : distances(pose, rays)) {
    const double square = distance / rays.px * distance / rays.px;
    cost += square / (1 + square);
  }
  return {cost, pose};
}

// Empty without an earlier image, without a calibration, or with fewer than 8 usable matches.
inline std::optional<Pose> relative_pose(const feature_frontend_msgs::msg::Matches& message) {
  const Rays rays = rays_of(message);
  if (rays.of0.size() < 8) return std::nullopt;
  std::pair<double, Pose> best{std::numeric_limits<double>::infinity(), {}};
  for (const Vector& start : {Vector{1, 0, 0}, Vector{0, 1, 0}, Vector{0, 0, 1}, Vector{1, 1, 1}, Vector{1, 1, -1},
                              Vector{1, -1, 1}, Vector{-1, 1, 1}}) {
    const auto found = refined(start, rays);
    if (found.first < best.first) best = found;
  }
  Pose pose = best.second;
  std::size_t ahead = 0;
  for (std::size_t i = 0; i < rays.of0.size(); ++i) {
    const Vector turned_ray = times(pose.rotation, rays.of0[i]);
    ahead += dot(cross(rays.of1[i], turned_ray), cross(pose.direction, rays.of1[i])) > 0;
  }
  if (2 * ahead <= rays.of0.size()) pose.direction = plus({0, 0, 0}, -1, pose.direction);
  return pose;
}

}  // namespace relative_pose
