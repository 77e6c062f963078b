#include "grpc_door.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/v1/recall.grpc.pb.h"
#include "grpc_call.h"
#include "grpc_status.h"

namespace freshet {
namespace {

constexpr int kMaxMessageBytes = 1024 * 1024;  // as the body of a request of HTTP
constexpr int kMaxMetadataBytes = 16 * 1024;   // as its header
constexpr int kMaxStreams = 100;               // calls at once of one connection
// What all connections may hold unread and unsent: with it gone, calls are refused and connections closed.
constexpr std::size_t kMaxBufferBytes = std::size_t{256} << 20;
// For reflection, which holds one for each of its streams. The calls of the service need none of these.
constexpr int kMaxReflectionThreads = 8;
// A connection is asked to go after so long, and its calls are cut off a while later: a call whose message never comes
// has no other bound.
constexpr int kMaxConnectionAgeMs = 600'000;
constexpr int kComplaintsPerSecond = 1;
constexpr std::size_t kMaxPemBytes = std::size_t{1} << 20;

constexpr RequestMeter::Form kGrpcForm = {
    "freshet_grpc_requests_total",
    "Calls of gRPC answered",
    "freshet_grpc_seconds",
    "Time from a whole call of gRPC to its answer, without the network",
    "method",
    {"/freshet.v1.Recall/Recall", "/freshet.v1.Recall/RecallBatch", "/freshet.v1.Recall/Score",
     "/freshet.v1.Recall/Status", "/freshet.v1.Recall/GetItem", "/freshet.v1.Recall/GetUser"},
    {"Recall", "RecallBatch", "Score", "Status", "GetItem", "GetUser"},
    [](int status) { return GrpcCodeName(GrpcCodeOf(status)); }};

// The service, whose messages are left as the bytes that they came as: GrpcCodec reads and writes them.
template <template <typename> typename... Methods>
struct RawMethods;
template <>
struct RawMethods<> {
  using Service = v1::Recall::Service;
};
template <template <typename> typename First, template <typename> typename... Rest>
struct RawMethods<First, Rest...> {
  using Service = First<typename RawMethods<Rest...>::Service>;
};
using RawService =
    RawMethods<v1::Recall::WithRawCallbackMethod_Recall, v1::Recall::WithRawCallbackMethod_RecallBatch,
               v1::Recall::WithRawCallbackMethod_GetItem, v1::Recall::WithRawCallbackMethod_GetUser,
               v1::Recall::WithRawCallbackMethod_Score, v1::Recall::WithRawCallbackMethod_Status>::Service;

class RecallCalls final : public RawService {
 public:
  explicit RecallCalls(GrpcCalls* calls) : calls_(calls) {}

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  grpc::ServerUnaryReactor* Recall(Context* context, const Bytes* request, Bytes* response) override {
    return calls_->Begin(kRecallRoute, context, request, response);
  }
  grpc::ServerUnaryReactor* RecallBatch(Context* context, const Bytes* request, Bytes* response) override {
    return calls_->Begin(kBatchRoute, context, request, response);
  }
  grpc::ServerUnaryReactor* GetItem(Context* context, const Bytes* request, Bytes* response) override {
    return calls_->Begin(kItemRoute, context, request, response);
  }
  grpc::ServerUnaryReactor* GetUser(Context* context, const Bytes* request, Bytes* response) override {
    return calls_->Begin(kUserRoute, context, request, response);
  }
  grpc::ServerUnaryReactor* Score(Context* context, const Bytes* request, Bytes* response) override {
    return calls_->Begin(kScoreRoute, context, request, response);
  }
  grpc::ServerUnaryReactor* Status(Context* context, const Bytes* request, Bytes* response) override {
    return calls_->Begin(kStatusRoute, context, request, response);
  }

 private:
  GrpcCalls* const calls_;
};

// Reflection for this server, or none: gRPC gives it to every server of a process that links it.
class Reflection final : public grpc::ServerBuilderOption {
 public:
  explicit Reflection(bool wanted) : wanted_(wanted) {}
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto own = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    std::erase_if(*plugins, [&](const auto& plugin) { return plugin->name() == own->name(); });
    if (wanted_) plugins->push_back(std::move(own));
  }

 private:
  const bool wanted_;
};

// gRPC's own complaints, of handshakes that failed and the like: strangers cause them, so they are few and no errors.
void LogComplaint(gpr_log_func_args* complaint) {
  static LineLimit& limit = *new LineLimit(kComplaintsPerSecond);  // threads of gRPC may outlive statics
  static const SystemClock& clock = *new SystemClock;
  const std::optional<std::uint64_t> left_out = limit.Take(clock.MonotonicUs());
  if (!left_out) return;
  LogFields fields = {{"reason", complaint->message}};
  if (*left_out > 0) fields.emplace_back("not_logged", StrCat(*left_out));
  if (complaint->severity == GPR_LOG_SEVERITY_ERROR) return LogWarning("query", "gRPC", fields);
  LogDebug("query", "gRPC", fields);
}

class GrpcDoorImpl final : public GrpcDoor {
 public:
  GrpcDoorImpl(const HttpOptions& options, RequestDesk* desk, Metrics* metrics)
      : options_(options),
        meter_(kGrpcForm, metrics),
        calls_(desk, &meter_, options.max_connections, metrics),
        service_(&calls_) {}
  ~GrpcDoorImpl() override { End(); }

  freshet::Status Start() override {
    try {
      return Listen();
    } catch (const std::exception& error) {
      return Internal(StrCat("gRPC: ", error.what()));
    }
  }

  void SetReady(bool ready) override {
    // Of the server as a whole (""), and of the service by its name.
    server_->GetHealthCheckService()->SetServingStatus("", ready);
    server_->GetHealthCheckService()->SetServingStatus(v1::Recall::service_full_name(), ready);
  }

  void BeginStop() override { server_->GetHealthCheckService()->Shutdown(); }

  void AwaitCalls(std::chrono::milliseconds timeout) override { calls_.Await(timeout); }

  void End() override {
    if (server_ == nullptr) return;
    calls_.AbandonAll();
    // What goes on by itself (reflection, those who watch our health) is cut off.
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
  }

  [[nodiscard]] std::string address() const override { return address_; }

 private:
  freshet::Status Listen() {
    // A text that is not UTF-8 is told to whoever sent it; nothing of theirs goes to our log.
    google::protobuf::SetLogHandler(nullptr);
    gpr_set_log_function(LogComplaint);
    grpc::EnableDefaultHealthCheckService(true);
    FRESHET_ASSIGN(const std::shared_ptr<grpc::ServerCredentials> credentials, Credentials());
    const std::string host = options_.grpc_listen.substr(0, options_.grpc_listen.rfind(':'));
    const std::string numeric = host == "localhost" ? "127.0.0.1" : host;
    const std::string port = options_.grpc_listen.substr(options_.grpc_listen.rfind(':'));
    int bound = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(numeric + port, credentials, &bound);
    builder.RegisterService(&service_);
    // Reflection asks for no token: where one is wanted of everybody, it is not there.
    builder.SetOption(std::make_unique<Reflection>(options_.token_file.empty()));
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetResourceQuota(
        grpc::ResourceQuota("freshet").Resize(kMaxBufferBytes).SetMaxThreads(kMaxReflectionThreads));
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // or two servers would share a port, unseen
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, options_.header_timeout_ms);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, options_.idle_timeout_ms);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kMaxConnectionAgeMs);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               options_.request_timeout_ms + options_.write_timeout_ms);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || bound == 0) {
      server_.reset();
      return Unavailable(
          StrCat("cannot listen on ", options_.grpc_listen, " for gRPC: the address is in use, or not ours"));
    }
    address_ = StrCat(numeric, ":", bound);
    SetReady(false);  // until it is told
    return freshet::Status::Ok();
  }

  // The files were found to be certificates and a key before, by the door of HTTP.
  [[nodiscard]] Result<std::shared_ptr<grpc::ServerCredentials>> Credentials() const {
    if (options_.tls.certificate.empty()) return grpc::InsecureServerCredentials();
    grpc::SslServerCredentialsOptions tls;
    grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
    FRESHET_ASSIGN(pair.cert_chain, ReadPem(options_.tls.certificate));
    FRESHET_ASSIGN(pair.private_key, ReadPem(options_.tls.key));
    tls.pem_key_cert_pairs.push_back(std::move(pair));
    if (!options_.tls.client_ca.empty()) {
      FRESHET_ASSIGN(tls.pem_root_certs, ReadPem(options_.tls.client_ca));
      tls.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
    }
    return grpc::SslServerCredentials(tls);
  }

  static Result<std::string> ReadPem(const std::string& path) {
    Result<std::string> text = ReadFile(path, kMaxPemBytes);
    if (!text.ok()) return ConfigError(StrCat("tls: ", text.status().message()));
    return text;
  }

  const HttpOptions options_;
  RequestMeter meter_;
  GrpcCalls calls_;
  RecallCalls service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace

bool GrpcIsBuiltIn() { return true; }

Result<std::unique_ptr<GrpcDoor>> MakeGrpcDoor(const HttpOptions& options, RequestDesk* desk, Metrics* metrics) {
  return std::unique_ptr<GrpcDoor>(std::make_unique<GrpcDoorImpl>(options, desk, metrics));
}

}  // namespace freshet
