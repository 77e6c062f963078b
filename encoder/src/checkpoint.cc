#include "checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"
#include "package_writer.h"
#include "training_run.h"

namespace freshet {
namespace {

constexpr std::string_view kMagic = "FRTRAIN2";
constexpr std::size_t kSumBytes = sizeof(std::uint64_t);

void PutFloats(const std::vector<float>& values, ByteWriter* out) {
  out->Put(static_cast<std::uint64_t>(values.size())).PutFloats(values);
}

// A length is believed only as far as the bytes go.
std::size_t GetCount(ByteReader* in, std::size_t bytes_each) {
  const auto count = in->Get<std::uint64_t>();
  if (count <= in->remaining() / bytes_each) return static_cast<std::size_t>(count);
  in->Fail();
  return 0;
}

std::vector<float> GetFloats(ByteReader* in) {
  std::vector<float> values(GetCount(in, sizeof(float)));
  in->GetFloats(values);
  return values;
}

void PutParameters(const std::vector<TowerParameter>& parameters, ByteWriter* out) {
  out->Put(static_cast<std::uint64_t>(parameters.size()));
  for (const TowerParameter& one : parameters) {
    out->PutString(one.name).Put(static_cast<std::uint32_t>(one.shape.size()));
    for (const std::int64_t extent : one.shape) out->Put(extent);
    PutFloats(one.values, out);
  }
}

std::vector<TowerParameter> GetParameters(ByteReader* in) {
  std::vector<TowerParameter> parameters(GetCount(in, sizeof(std::uint64_t)));
  for (TowerParameter& one : parameters) {
    one.name = in->GetString();
    const auto rank = in->Get<std::uint32_t>();
    std::uint64_t product = 1;
    for (std::uint32_t i = 0; i < rank && in->ok(); ++i) {
      one.shape.push_back(in->Get<std::int64_t>());
      product *= static_cast<std::uint64_t>(one.shape.back());
    }
    one.values = GetFloats(in);
    if (rank > 8 || product != one.values.size()) in->Fail();
    if (!in->ok()) return {};
  }
  return parameters;
}

void PutTrainer(const TrainerState& state, ByteWriter* out) {
  out->Put(state.steps).PutString(state.generator).Put(static_cast<std::uint64_t>(state.parameters.size()));
  for (const ParameterState& one : state.parameters) {
    out->PutString(one.name);
    PutFloats(one.value, out);
    PutFloats(one.first, out);
    PutFloats(one.second, out);
  }
}

TrainerState GetTrainer(ByteReader* in) {
  TrainerState state;
  state.steps = in->Get<std::int64_t>();
  state.generator = in->GetString();
  state.parameters.resize(GetCount(in, sizeof(std::uint64_t)));
  for (ParameterState& one : state.parameters) {
    one.name = in->GetString();
    one.value = GetFloats(in);
    one.first = GetFloats(in);
    one.second = GetFloats(in);
  }
  return state;
}

// The lines that are of the data, without the beginning of their names, or those that are not.
std::vector<std::string> SettingsOf(const std::string& text, bool of_data) {
  std::vector<std::string> lines;
  for (std::string& line : Split(text, '\n')) {
    if (line.starts_with(kOfData) != of_data) continue;
    if (of_data) line.erase(0, kOfData.size());
    lines.push_back(std::move(line));
  }
  return lines;
}

Status CheckSame(const std::vector<std::string>& then, const std::vector<std::string>& now) {
  for (std::size_t i = 0; i < std::max(then.size(), now.size()); ++i) {
    const std::string was = i < then.size() ? then[i] : "";
    const std::string is = i < now.size() ? now[i] : "";
    if (was == is) continue;
    return FailedPrecondition(StrCat("the checkpoint is of a training with `", was, "`, not `", is,
                                     "`: give the same settings, or start anew without --resume"));
  }
  return Status::Ok();
}

Status Damaged(std::string_view what) { return Corruption(StrCat("the checkpoint is damaged: ", what)); }

}  // namespace

std::string CheckpointPath(const std::string& out_directory, bool refit) {
  return PathBeside(out_directory, refit ? ".refit.checkpoint" : ".checkpoint");
}

Status RemoveCheckpoints(const std::string& out_directory) {
  for (const bool refit : {true, false}) {
    const std::string path = CheckpointPath(out_directory, refit);
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error) return IoError(StrCat(path, ": cannot be removed: ", error.message()));
  }
  return Status::Ok();
}

std::string EncodeCheckpoint(const TrainingCheckpoint& checkpoint) {
  ByteWriter out;
  out.PutBytes(kMagic).PutString(checkpoint.settings).PutString(checkpoint.data);
  out.Put(static_cast<std::int32_t>(checkpoint.epoch)).Put(checkpoint.step).Put(checkpoint.loss_sum);
  out.Put(checkpoint.seconds).Put(static_cast<std::uint64_t>(checkpoint.order.size()));
  for (const std::uint32_t example : checkpoint.order) out.Put(example);
  out.Put(static_cast<std::uint64_t>(checkpoint.mined.size()));
  for (const std::int32_t item : checkpoint.mined) out.Put(item);
  out.PutString(checkpoint.random);
  PutTrainer(checkpoint.trainer, &out);
  const KeptEpoch& best = checkpoint.best;
  out.Put(static_cast<std::int32_t>(best.epoch)).Put(best.recall).Put(best.loss);
  if (best.epoch > 0) {
    PutParameters(best.item, &out);
    PutParameters(best.user, &out);
    PutFloats(best.golden_items, &out);
    PutFloats(best.golden_users, &out);
  }
  out.Put(static_cast<std::uint64_t>(checkpoint.epochs.size()));
  for (const EpochRecord& one : checkpoint.epochs) {
    out.Put(static_cast<std::int32_t>(one.epoch)).Put(one.loss).Put(one.recall).Put(one.seconds);
  }
  out.Put(Xxh3(out.bytes()));
  return out.Take();
}

Result<TrainingCheckpoint> DecodeCheckpoint(std::string_view bytes) {
  if (bytes.size() < kMagic.size() + kSumBytes) return Damaged("it is too short");
  if (bytes.substr(0, 7) != kMagic.substr(0, 7)) return Damaged("it does not begin as one");
  if (bytes.substr(0, 8) != kMagic) {
    return FailedPrecondition("the checkpoint was written by another version of freshet: start anew without --resume");
  }
  const std::string_view body = bytes.substr(0, bytes.size() - kSumBytes);
  ByteReader sum(bytes.substr(body.size()));
  if (sum.Get<std::uint64_t>() != Xxh3(body)) return Damaged("its checksum does not match");

  ByteReader in(body.substr(kMagic.size()));
  TrainingCheckpoint checkpoint;
  checkpoint.settings = in.GetString();
  checkpoint.data = in.GetString();
  checkpoint.epoch = in.Get<std::int32_t>();
  checkpoint.step = in.Get<std::int64_t>();
  checkpoint.loss_sum = in.Get<double>();
  checkpoint.seconds = in.Get<double>();
  checkpoint.order.resize(GetCount(&in, sizeof(std::uint32_t)));
  for (std::uint32_t& example : checkpoint.order) example = in.Get<std::uint32_t>();
  checkpoint.mined.resize(GetCount(&in, sizeof(std::int32_t)));
  for (std::int32_t& item : checkpoint.mined) item = in.Get<std::int32_t>();
  checkpoint.random = in.GetString();
  checkpoint.trainer = GetTrainer(&in);
  KeptEpoch& best = checkpoint.best;
  best.epoch = in.Get<std::int32_t>();
  best.recall = in.Get<double>();
  best.loss = in.Get<double>();
  if (best.epoch > 0) {
    best.item = GetParameters(&in);
    best.user = GetParameters(&in);
    best.golden_items = GetFloats(&in);
    best.golden_users = GetFloats(&in);
  }
  checkpoint.epochs.resize(GetCount(&in, sizeof(double)));
  for (EpochRecord& one : checkpoint.epochs) {
    one.epoch = in.Get<std::int32_t>();
    one.loss = in.Get<double>();
    one.recall = in.Get<double>();
    one.seconds = in.Get<double>();
  }
  if (!in.finished()) return Damaged("a field is cut short");
  if (checkpoint.epoch < 1 || checkpoint.step < 0) return Damaged("it stands nowhere");
  return checkpoint;
}

Status CheckContinues(const TrainingCheckpoint& written, const std::string& settings, const std::string& data) {
  FRESHET_TRY(CheckSame(SettingsOf(written.settings, false), SettingsOf(settings, false)));
  if (written.data == data) return Status::Ok();
  // Older checkpoints do not say what their data was made by.
  const std::vector<std::string> then = SettingsOf(written.settings, true);
  if (!then.empty()) FRESHET_TRY(CheckSame(then, SettingsOf(settings, true)));
  return FailedPrecondition(
      "the checkpoint is of a training on other data: give the same files, or start anew without --resume");
}

}  // namespace freshet
