// `freshet model`: what is in a package, and is it whole?
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/encoder/package.h"

namespace freshet {
namespace {

struct ModelArguments {
  std::string directory;
  std::string root;
  bool json = false;
};

void WriteSpec(const char* key, const FeatureSpec& spec, JsonWriter* out) {
  out->Key(key).BeginArray();
  for (const FeatureDef& def : spec.features) {
    out->BeginObject().Key("name").String(def.name).Key("kind").String(FeatureKindName(def.kind));
    if (!def.boundaries.empty()) {
      out->Key("boundaries").BeginArray();
      for (const double boundary : def.boundaries) out->Double(boundary);
      out->EndArray();
    } else if (def.kind != FeatureKind::kDense) {
      out->Key("vocabulary").Uint(def.vocabulary.size()).Key("buckets").Int(def.buckets);
    }
    if (def.ReadsNgrams()) {
      out->Key("word_ngrams").Int(def.word_ngrams).Key("char_ngrams").BeginArray();
      if (def.char_max > 0) out->Int(def.char_min).Int(def.char_max);
      out->EndArray();
    }
    out->EndObject();
  }
  out->EndArray();
}

std::string ToJson(const ModelManifest& manifest, bool verified) {
  JsonWriter out;
  out.BeginObject().Key("name").String(manifest.name).Key("version").String(manifest.version);
  out.Key("embedding_space_id").String(manifest.space_id).Key("dim").Int(manifest.dim);
  out.Key("metric").String(MetricName(manifest.metric)).Key("signature").String(manifest.signature);
  out.Key("library").String(manifest.library_version).Key("files").BeginObject();
  for (const auto& [file, sum] : manifest.sha256) out.Key(file).String(sum);
  out.EndObject();
  WriteSpec("item_features", manifest.item, &out);
  WriteSpec("user_features", manifest.user, &out);
  if (manifest.reranker) {
    out.Key("reranker").BeginObject();
    WriteSpec("item_features", manifest.reranker->item, &out);
    WriteSpec("user_features", manifest.reranker->user, &out);
    out.EndObject();
  }
  if (verified) out.Key("verified").Bool(true);
  out.EndObject();
  return out.Take() + "\n";
}

void PrintSpec(const char* title, const FeatureSpec& spec) {
  std::printf("%s\n", title);
  for (const FeatureDef& def : spec.features) {
    std::printf("  %-20s %-15s", def.name.c_str(), std::string(FeatureKindName(def.kind)).c_str());
    if (def.kind == FeatureKind::kDense) {
      std::printf("(x - %.6g) / %.6g%s\n", def.mean, def.stddev, def.log ? " of the logarithm" : "");
    } else if (!def.boundaries.empty()) {
      std::printf("%zu boundaries from %.6g to %.6g, and what is missing\n", def.boundaries.size(),
                  def.boundaries.front(), def.boundaries.back());
    } else {
      std::printf("%zu values, %lld buckets", def.vocabulary.size(), static_cast<long long>(def.buckets));
      if (def.word_ngrams > 1) std::printf(", of 1 to %d words", def.word_ngrams);
      if (def.char_max > 0) std::printf(", of %d to %d characters", def.char_min, def.char_max);
      if (def.word_ngrams == 0) std::printf(" only");
      std::printf("\n");
    }
  }
}

void Print(const ModelManifest& manifest) {
  std::printf(
      "name       %s\nversion    %s\nspace      %s\nvectors    %d dimensions, %s\nsignature  %s\nlibrary    %s\n",
      manifest.name.c_str(), manifest.version.c_str(), manifest.space_id.c_str(), manifest.dim,
      MetricName(manifest.metric), manifest.signature.c_str(), manifest.library_version.c_str());
  for (const auto& [file, sum] : manifest.sha256) std::printf("sha256     %s  %s\n", sum.c_str(), file.c_str());
  PrintSpec("item features", manifest.item);
  PrintSpec("user features", manifest.user);
  if (!manifest.reranker) return;
  PrintSpec("re-ranker: item features, of attributes", manifest.reranker->item);
  PrintSpec("re-ranker: user features", manifest.reranker->user);
}

// Opening checks the checksums, the manifest and the golden file; loading probes each tower and runs its goldens.
Status RunModel(const ModelArguments& arguments, bool verify) {
  FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package,
                 OpenModelPackage({arguments.directory, arguments.root, 1}));
  if (verify) {
    FRESHET_TRY(package->LoadItemEncoder().status());
    FRESHET_TRY(package->LoadUserEncoder().status());
    if (package->manifest().reranker) FRESHET_TRY(package->LoadReranker().status());
  }
  if (arguments.json) {
    std::cout << ToJson(package->manifest(), verify);
  } else if (verify) {
    std::printf("%s: whole: checksums, specs, embedding space %s, and the goldens of both towers%s hold\n",
                arguments.directory.c_str(), package->manifest().space_id.c_str(),
                package->manifest().reranker ? " and the re-ranker" : "");
  } else {
    Print(package->manifest());
  }
  return Status::Ok();
}

void AddOne(CLI::App* parent, CommandRunner* run, const char* name, const char* what, bool verify,
            const std::string& example) {
  auto arguments = std::make_shared<ModelArguments>();
  CLI::App* command = parent->add_subcommand(name, what);
  command->add_option("DIRECTORY", arguments->directory, "The package")->required();
  command->add_option("--root", arguments->root, "Refuse a package that does not lie beneath this directory");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer("Example:\n  " + example);
  command->callback(
      [arguments, run, verify] { *run = [arguments, verify] { return ExitCode(RunModel(*arguments, verify)); }; });
}

}  // namespace

void AddModelCommand(CLI::App* app, CommandRunner* run) {
  CLI::App* command = app->add_subcommand("model", "Look at a model package.");
  command->require_subcommand(1);
  command->footer("Example:\n  freshet model show /tmp/shop/model\n  freshet model verify /tmp/shop/model");
  AddOne(command, run, "show", "Print the manifest of a package; checksums are checked, no code of it runs.", false,
         "freshet model show /tmp/shop/model");
  AddOne(command, run, "verify",
         "Check everything that serving checks: checksums, specs, space id, both towers (and the re-ranker) and their "
         "goldens.",
         true, "freshet model verify /tmp/shop/model");
}

}  // namespace freshet
