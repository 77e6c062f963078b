#include "freshet/query/recall_binary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "freshet/core/bytes.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::string_view kRequestMagic = "FRR1";
constexpr std::string_view kAnswerMagic = "FRA1";
constexpr std::uint32_t kExact = 1;
constexpr std::uint32_t kMaxAnswerHits = 1'000'000;

Status CheckRange(std::uint64_t value, std::uint64_t min, std::uint64_t max, const char* pointer) {
  if (value >= min && value <= max) return Status::Ok();
  return InvalidArgument(StrCat(pointer, ": must be between ", min, " and ", max));
}

}  // namespace

std::string EncodeBinaryRequest(std::span<const float> vector, const BinaryParams& params) {
  ByteWriter out;
  out.PutBytes(kRequestMagic).Put(params.exact ? kExact : std::uint32_t{0});
  out.Put(params.k).Put(params.ef).Put(params.timeout_ms).Put(static_cast<std::uint32_t>(vector.size()));
  return out.PutFloats(vector).Take();
}

Result<RecallRequest> DecodeBinaryRequest(std::string_view body) {
  ByteReader in(body);
  if (in.GetBytes(kRequestMagic.size()) != kRequestMagic) {
    return InvalidArgument("the body must begin with the four bytes FRR1");
  }
  const auto flags = in.Get<std::uint32_t>();
  const auto k = in.Get<std::uint32_t>();
  const auto ef = in.Get<std::uint32_t>();
  const auto timeout_ms = in.Get<std::uint32_t>();
  const auto floats = in.Get<std::uint32_t>();
  if (!in.ok()) return InvalidArgument("the body ends within its header of 24 bytes");
  if ((flags & ~kExact) != 0) return InvalidArgument("/flags: only bit 0 (exact) is known");
  FRESHET_TRY(CheckRange(k, 1, kMaxK, "/k"));
  FRESHET_TRY(CheckRange(ef, 0, kMaxEf, "/params/ef"));
  FRESHET_TRY(CheckRange(timeout_ms, 0, kMaxTimeoutMs, "/timeout_ms"));
  // Before anything of that size is made.
  if (in.remaining() != std::uint64_t{floats} * sizeof(float)) {
    return InvalidArgument(
        StrCat("/vector: ", floats, " floats are announced, ", in.remaining(), " bytes follow the header"));
  }
  RecallRequest request;
  std::vector<float>& vector = request.vector.emplace(floats);
  in.GetFloats(vector);
  for (std::size_t i = 0; i < vector.size(); ++i) {
    if (!std::isfinite(vector[i])) return InvalidArgument(StrCat("/vector/", i, ": must be a finite number"));
  }
  request.k = k;
  request.ef = ef;
  request.timeout_ms = timeout_ms;
  request.exact = (flags & kExact) != 0;
  return request;
}

std::string EncodeBinaryAnswer(const RecallResponse& response) {
  std::vector<float> scores;
  std::vector<std::uint32_t> ends;
  std::string ids;
  scores.reserve(response.results.size());
  ends.reserve(response.results.size());
  for (const RecallHit& hit : response.results) {
    scores.push_back(hit.score);
    ids += hit.id;
    ends.push_back(static_cast<std::uint32_t>(ids.size()));
  }
  const double most_us = std::numeric_limits<std::uint32_t>::max();
  ByteWriter out;
  out.PutBytes(kAnswerMagic).Put(std::uint32_t{0}).Put(static_cast<std::uint32_t>(scores.size()));
  out.Put(static_cast<std::uint32_t>(ids.size())).Put(response.index_version).Put(response.as_of_ms);
  out.Put(static_cast<std::uint32_t>(std::clamp(response.took_ms * 1e3, 0.0, most_us)));
  out.Put(static_cast<std::uint32_t>(response.model_version.size())).PutFloats(scores);
  for (const std::uint32_t end : ends) out.Put(end);
  return out.PutBytes(response.model_version).PutBytes(ids).Take();
}

Result<RecallResponse> DecodeBinaryAnswer(std::string_view body) {
  ByteReader in(body);
  if (in.GetBytes(kAnswerMagic.size()) != kAnswerMagic) return Corruption("the answer does not begin with FRA1");
  const auto flags = in.Get<std::uint32_t>();
  const auto count = in.Get<std::uint32_t>();
  const auto id_bytes = in.Get<std::uint32_t>();
  RecallResponse response;
  response.index_version = in.Get<std::uint64_t>();
  response.as_of_ms = in.Get<std::int64_t>();
  response.took_ms = static_cast<double>(in.Get<std::uint32_t>()) * 1e-3;
  const auto model_bytes = in.Get<std::uint32_t>();
  if (!in.ok() || flags != 0) return Corruption("the answer's header is not one of this version");
  if (count > kMaxAnswerHits || in.remaining() != std::uint64_t{count} * 8 + model_bytes + std::uint64_t{id_bytes}) {
    return Corruption("the answer is not as long as its header says");
  }
  std::vector<float> scores(count);
  in.GetFloats(scores);
  std::vector<std::uint32_t> ends(count);
  for (std::uint32_t& end : ends) end = in.Get<std::uint32_t>();
  response.model_version = in.GetBytes(model_bytes);
  const std::string_view ids = in.GetBytes(id_bytes);
  std::uint32_t begin = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (ends[i] < begin || ends[i] > ids.size()) return Corruption("the answer's ids do not follow one another");
    response.results.push_back({std::string(ids.substr(begin, ends[i] - begin)), scores[i], {}});
    begin = ends[i];
  }
  if (begin != ids.size()) return Corruption("the answer has bytes behind its last id");
  return response;
}

}  // namespace freshet
