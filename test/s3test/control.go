package s3test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Actions of a Rule.
const (
	// ActionStatus answers Status without doing anything.
	ActionStatus = "status"
	// ActionReset resets the connection without doing anything.
	ActionReset = "reset"
	// ActionStall takes the request and never answers: it ends with a reset after
	// DelayMs (never if 0), when faults are cleared or when the client leaves.
	ActionStall = "stall"
	// ActionDelay does the request after DelayMs.
	ActionDelay = "delay"
	// ActionDropResponse does the request and resets the connection instead of
	// answering: the client cannot know the outcome.
	ActionDropResponse = "drop_response"
	// ActionHold keeps the whole request until Release, which does it even if the
	// client has long gone: the way to have a PUT land late.
	ActionHold = "hold"
	// ActionShortBody does the request and cuts the answer in the middle of its body.
	ActionShortBody = "short_body"
)

// AnyOp matches every operation in a Rule.
const AnyOp = "*"

// AllHeld releases or discards every held request.
const AllHeld = "*"

// Rule says which requests fail and how. The first rule that matches a request
// decides.
type Rule struct {
	// Op is an S3 operation by its API name (PutObject, ListObjectsV2, …), or AnyOp.
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

// RuleState is a rule and how often it has acted.
type RuleState struct {
	Rule
	Hits int `json:"hits"`
}

// Counts says what arrived since the start or the last reset. A request is counted
// before the first byte of its answer, whatever became of it.
type Counts struct {
	Total    int            `json:"total"`
	ByOp     map[string]int `json:"byOp"`
	BytesIn  map[string]int `json:"bytesIn"`  // request body bytes by operation
	BytesOut map[string]int `json:"bytesOut"` // response body bytes by operation
}

// Request is one request that arrived.
type Request struct {
	Seq    int    `json:"seq"`
	Op     string `json:"op"`
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Range  string `json:"range"`
	Fault  string `json:"fault"`  // action of the rule that decided, if any
	Status int    `json:"status"` // 0: none yet, or none at all
	Done   bool   `json:"done"`   // the server has finished with it
}

// HeldRequest waits for its release.
type HeldRequest struct {
	ID     string `json:"id"`
	Op     string `json:"op"`
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Bytes  int    `json:"bytes"` // of the request body
}

// Released says what a released request did.
type Released struct {
	ID     string `json:"id"`
	Status int    `json:"status"` // 0 if discarded or unanswered
	ETag   string `json:"etag"`
	Error  string `json:"error"`
}

// controlTimeout is the limit of one control call.
const controlTimeout = 30 * time.Second

// Counts returns what arrived since the last ResetCounts.
func (s *Server) Counts() (Counts, error) {
	var out Counts
	err := s.call(http.MethodGet, "/counts", nil, &out)
	return out, err
}

// ResetCounts sets all counts to zero and forgets the request list.
func (s *Server) ResetCounts() error {
	return s.call(http.MethodPost, "/counts/reset", nil, nil)
}

// Requests lists the latest requests (a few thousand at most) since ResetCounts.
func (s *Server) Requests() ([]Request, error) {
	var out []Request
	err := s.call(http.MethodGet, "/requests", nil, &out)
	return out, err
}

// AddFault appends rules.
func (s *Server) AddFault(rules ...Rule) error {
	return s.call(http.MethodPost, "/faults", rules, nil)
}

// Faults lists the rules with their hits.
func (s *Server) Faults() ([]RuleState, error) {
	var out []RuleState
	err := s.call(http.MethodGet, "/faults", nil, &out)
	return out, err
}

// ClearFaults removes all rules and resets stalled requests; held ones stay.
func (s *Server) ClearFaults() error {
	return s.call(http.MethodDelete, "/faults", nil, nil)
}

// Held lists the held requests.
func (s *Server) Held() ([]HeldRequest, error) { return s.WaitHeld(0, 0) }

// WaitHeld returns the held requests once there are at least n, or an error after
// timeout (at most 20 s).
func (s *Server) WaitHeld(n int, timeout time.Duration) ([]HeldRequest, error) {
	q := url.Values{"min": {strconv.Itoa(n)}, "timeoutMs": {strconv.FormatInt(timeout.Milliseconds(), 10)}}
	var out []HeldRequest
	if err := s.call(http.MethodGet, "/held?"+q.Encode(), nil, &out); err != nil {
		return nil, err
	}
	if len(out) < n {
		return out, fmt.Errorf("s3test: %d requests held after %s, want %d", len(out), timeout, n)
	}
	return out, nil
}

// Release does the held request of that id (AllHeld: every one, in order of
// arrival) and returns when it has taken effect.
func (s *Server) Release(id string) ([]Released, error) { return s.decide(id, false) }

// Discard drops a held request (AllHeld: every one): it never takes effect.
func (s *Server) Discard(id string) error {
	_, err := s.decide(id, true)
	return err
}

func (s *Server) decide(id string, discard bool) ([]Released, error) {
	in := map[string]any{"id": id, "discard": discard}
	var out []Released
	err := s.call(http.MethodPost, "/release", in, &out)
	return out, err
}

// Down makes the server refuse connections and resets the open ones; the control
// API stays up.
func (s *Server) Down() error { return s.call(http.MethodPost, "/down", nil, nil) }

// Up ends Down.
func (s *Server) Up() error { return s.call(http.MethodPost, "/up", nil, nil) }

// NewBucket creates a bucket, or does nothing if it exists. Names have 3 to 63
// lower-case letters, digits, dots and hyphens.
func (s *Server) NewBucket(name string) error {
	return s.call(http.MethodPut, "/buckets/"+url.PathEscape(name), nil, nil)
}

// call does one control request.
func (s *Server) call(method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return fmt.Errorf("s3test: %s %s: %w", method, path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Control+path, &body)
	if err != nil {
		return fmt.Errorf("s3test: %s %s: %w", method, path, err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("s3test: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("s3test: %s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("s3test: %s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("s3test: %s %s: %w", method, path, err)
	}
	return nil
}
