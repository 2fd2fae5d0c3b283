package proxy

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
)

var errNotHeld = errors.New("no such request is held: list them with GET /held")

// Held describes a request that waits for its release.
type Held struct {
	ID     string `json:"id"`
	Op     string `json:"op"`
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Bytes  int    `json:"bytes"` // of the request body
}

// Released says what a released request did.
type Released struct {
	ID     string `json:"id"`
	Status int    `json:"status"`          // of the engine's answer, 0 if discarded
	ETag   string `json:"etag,omitempty"`  // of the engine's answer
	Error  string `json:"error,omitempty"` // if the engine gave no answer
}

// heldRequest is one waiting handler. forward is sent once; done is closed by the
// handler when the engine has answered.
type heldRequest struct {
	Held
	forward chan bool
	done    chan struct{}
	result  Released
}

// holds is the set of waiting requests. Safe for concurrent use.
type holds struct {
	mu      sync.Mutex
	next    int
	list    []*heldRequest
	changed chan struct{} // closed at each change
}

func newHolds() *holds { return &holds{changed: make(chan struct{})} }

func (h *holds) add(c call, size int) *heldRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	r := &heldRequest{
		Held:    Held{ID: strconv.Itoa(h.next), Op: c.op, Bucket: c.bucket, Key: c.key, Bytes: size},
		forward: make(chan bool, 1),
		done:    make(chan struct{}),
	}
	h.list = append(h.list, r)
	h.signal()
	return r
}

func (h *holds) signal() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// waitFor returns the held requests once there are at least n, or when ctx ends.
func (h *holds) waitFor(ctx context.Context, n int) []Held {
	for {
		h.mu.Lock()
		out := make([]Held, 0, len(h.list))
		for _, r := range h.list {
			out = append(out, r.Held)
		}
		changed := h.changed
		h.mu.Unlock()
		if len(out) >= n {
			return out
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return out
		}
	}
}

// take removes the request of that id, or all for "*", in order of arrival.
func (h *holds) take(id string) ([]*heldRequest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id == "*" {
		all := h.list
		h.list = nil
		h.signal()
		return all, nil
	}
	i := slices.IndexFunc(h.list, func(r *heldRequest) bool { return r.ID == id })
	if i < 0 {
		return nil, errNotHeld
	}
	r := h.list[i]
	h.list = slices.Delete(h.list, i, i+1)
	h.signal()
	return []*heldRequest{r}, nil
}

// release lets requests go one after the other, each when the engine has answered
// the one before, and returns what they did. Without forward they are discarded.
func (h *holds) release(ctx context.Context, id string, forward bool) ([]Released, error) {
	taken, err := h.take(id)
	if err != nil {
		return nil, err
	}
	out := make([]Released, 0, len(taken))
	for _, r := range taken {
		r.forward <- forward
		select {
		case <-r.done:
			out = append(out, r.result)
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
	return out, nil
}
