package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// Actions of a rule.
const (
	// ActionStatus answers Status without forwarding.
	ActionStatus = "status"
	// ActionReset resets the connection without forwarding.
	ActionReset = "reset"
	// ActionStall takes the request and never answers: it ends with a reset after
	// DelayMs (never if 0), when the rules are cleared or when the client leaves.
	ActionStall = "stall"
	// ActionDelay forwards after DelayMs.
	ActionDelay = "delay"
	// ActionDropResponse forwards, waits for the engine's answer and resets the
	// connection instead of passing it on.
	ActionDropResponse = "drop_response"
	// ActionHold keeps the whole request until it is released, then forwards it
	// even if the client has long gone.
	ActionHold = "hold"
	// ActionShortBody forwards and cuts the answer in the middle of its body.
	ActionShortBody = "short_body"
)

// Rule says which requests fail and how. The first rule that matches a request
// decides.
type Rule struct {
	// Op is an S3 operation such as PutObject, or AnyOp.
	Op string `json:"op"`
	// Bucket, if not empty, must be the request's bucket.
	Bucket string `json:"bucket,omitempty"`
	// KeyPrefix must begin the request's key, or its prefix in a listing. The keys
	// of DeleteObjects are in the body and not looked at.
	KeyPrefix string `json:"keyPrefix,omitempty"`
	// Action is one of the Action constants.
	Action string `json:"action"`
	// Status is the HTTP status of ActionStatus; 0 means 503.
	Status int `json:"status,omitempty"`
	// Code is the S3 error code of ActionStatus; empty means the usual one.
	Code string `json:"code,omitempty"`
	// DelayMs is a time in milliseconds for ActionDelay and ActionStall.
	DelayMs int `json:"delayMs,omitempty"`
	// Probability of a match to count, above 0 to 1; 0 means 1.
	Probability float64 `json:"probability,omitempty"`
	// After is the number of matches to let pass first.
	After int `json:"after,omitempty"`
	// Times is how often the rule acts; 0 means without end.
	Times int `json:"times,omitempty"`
}

func (r Rule) validate() error {
	actions := []string{
		ActionStatus, ActionReset, ActionStall, ActionDelay, ActionDropResponse, ActionHold, ActionShortBody,
	}
	switch {
	case !knownOp(r.Op):
		return fmt.Errorf("unknown op %q: use an S3 operation such as PutObject, or %q", r.Op, AnyOp)
	case !slices.Contains(actions, r.Action):
		return fmt.Errorf("unknown action %q: use one of %s", r.Action, strings.Join(actions, ", "))
	case r.Status != 0 && (r.Status < 200 || r.Status > 599):
		return fmt.Errorf("status %d is none: use 200 to 599", r.Status)
	case r.Probability < 0 || r.Probability > 1:
		return fmt.Errorf("probability %v is none: use 0 to 1", r.Probability)
	case r.DelayMs < 0 || r.After < 0 || r.Times < 0:
		return fmt.Errorf("delayMs, after and times must not be negative")
	case r.Action == ActionDelay && r.DelayMs == 0:
		return fmt.Errorf("action %q needs delayMs", ActionDelay)
	}
	return nil
}

// RuleState is a rule and how often it acted.
type RuleState struct {
	Rule
	Hits int `json:"hits"`

	passed int
}

// rules is the list of active rules. Safe for concurrent use.
type rules struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	list    []*RuleState
	cleared chan struct{} // closed when the list is cleared
}

func newRules(seed uint64) *rules {
	return &rules{rnd: rand.New(rand.NewPCG(seed, seed)), cleared: make(chan struct{})}
}

func (s *rules) add(list []Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range list {
		s.list = append(s.list, &RuleState{Rule: r})
	}
}

func (s *rules) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
	close(s.cleared)
	s.cleared = make(chan struct{})
}

func (s *rules) states() []RuleState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]RuleState, 0, len(s.list))
	for _, r := range s.list {
		out = append(out, *r)
	}
	return out
}

// match returns the rule that decides about c, if any, and the channel that is
// closed when the rules are cleared.
func (s *rules) match(c call) (Rule, bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.list {
		if !r.applies(c) || (r.Times > 0 && r.Hits >= r.Times) {
			continue
		}
		if r.Probability > 0 && s.rnd.Float64() >= r.Probability {
			continue
		}
		if r.passed < r.After {
			r.passed++
			continue
		}
		r.Hits++
		return r.Rule, true, s.cleared
	}
	return Rule{}, false, s.cleared
}

func (r Rule) applies(c call) bool {
	return (r.Op == AnyOp || r.Op == c.op) &&
		(r.Bucket == "" || r.Bucket == c.bucket) &&
		strings.HasPrefix(c.key, r.KeyPrefix)
}
