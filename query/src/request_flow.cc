#include "request_flow.h"

#include "http_slots.h"
#include "http_waiters.h"

namespace freshet {

void RequestFlow::Answer() {
  HttpApi& api = *desk_->api;
  if (std::optional<HttpAnswer> answer = api.AnswerAtOnce(View())) return Respond(std::move(*answer));
  if (!AnswerInPlace(true, [this] { return MakeAnswer(); })) {
    Respond(api.Refuse(View(), ProblemAnswer(ResourceExhausted("too many requests queue for a place to search"))));
  }
}

HttpAnswer RequestFlow::MakeAnswer() const {
  if (!CallerHasLeft()) return desk_->api->Answer(View());
  return desk_->api->Refuse(View(), ProblemAnswer(kCallerLeft, "cancelled", "The caller did not wait for the answer"));
}

template <typename Make>
bool RequestFlow::AnswerInPlace(bool may_be_refused, const Make& make) {
  const auto answer = [](RequestFlow* self, const Make& make_it, RequestSlots::Place place) {
    HttpAnswer made = make_it();
    place.Leave();  // nobody waits for it to be written
    self->Respond(std::move(made));
  };
  RequestSlots::Place place;
  const RequestSlots::Entry entry = desk_->slots->Enter(may_be_refused, &place, [&] {
    return [self = Self(), make, answer](RequestSlots::Place turn) {
      const auto kept = std::make_shared<RequestSlots::Place>(std::move(turn));  // what is posted can be copied
      self->Post([self, make, answer, kept] { answer(self.get(), make, std::move(*kept)); });
    };
  });
  if (entry == RequestSlots::Entry::kEntered) answer(this, make, std::move(place));
  return entry != RequestSlots::Entry::kFull;
}

void RequestFlow::Respond(HttpAnswer answer) {
  if (answer.wait) {
    const std::shared_ptr<HttpWait> wait = std::move(answer.wait);
    const bool waits = desk_->waiters->Add(wait->min_as_of_ms, wait->deadline_us,
                                           [self = Self(), wait] { self->Post([self, wait] { self->GoOn(wait); }); });
    if (waits) return;
    if (desk_->stopping) return Respond(wait->go_on(Cancelled("try another sidecar")));
    answer = wait->go_on(Unavailable("too many requests wait for their `min_as_of`; try again, or without it"));
    if (answer.status == 503) answer.retry_after_seconds = 1;
  }
  Write(std::move(answer));
}

// Who has waited for freshness queues for a place like others, but was let in already: it is not refused.
void RequestFlow::GoOn(const std::shared_ptr<HttpWait>& wait) {
  if (desk_->stopping || !AnswerInPlace(false, [wait] { return wait->go_on(Status::Ok()); })) {
    Respond(wait->go_on(Cancelled("try another sidecar")));
  }
}

}  // namespace freshet
