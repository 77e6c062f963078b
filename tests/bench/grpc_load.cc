#include "grpc_load.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <vector>

#include "freshet/core/strings.h"
#include "freshet/v1/recall.pb.h"

namespace freshet::bench {
namespace {

class Load final : public GrpcLoad {
 public:
  explicit Load(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {}

  Status Call(const std::string& request) override {
    grpc::ByteBuffer answer;
    return Ask(request, &answer);
  }
  [[nodiscard]] Result<std::vector<std::string>> Ids(const std::string& request) override {
    grpc::ByteBuffer answer;
    FRESHET_TRY(Ask(request, &answer));
    grpc::Slice bytes;
    v1::RecallResponse response;
    if (!answer.DumpToSingleSlice(&bytes).ok() ||
        !response.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()))) {
      return Internal("the answer of gRPC cannot be read");
    }
    std::vector<std::string> ids;
    for (const v1::Hit& hit : response.results()) ids.push_back(hit.id());
    return ids;
  }

 private:
  Status Ask(const std::string& request, grpc::ByteBuffer* answer) {
    grpc::ClientContext context;
    const grpc::Slice slice(request);
    const auto call =
        stub_.PrepareUnaryCall(&context, "/freshet.v1.Recall/Recall", grpc::ByteBuffer(&slice, 1), &queue_);
    call->StartCall();
    grpc::Status status;
    call->Finish(answer, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    if (!queue_.Next(&tag, &ok) || !status.ok()) return Internal(StrCat("gRPC: ", status.error_message()));
    return Status::Ok();
  }

  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
};

}  // namespace

std::string GrpcLoad::Request(std::span<const float> query, std::size_t k) {
  v1::RecallRequest request;
  request.mutable_vector()->Assign(query.begin(), query.end());
  request.set_k(static_cast<std::uint32_t>(k));
  return request.SerializeAsString();
}

std::unique_ptr<GrpcLoad> GrpcLoad::Open(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return std::make_unique<Load>(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace freshet::bench
