package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Switch shuts and opens the server's door.
type Switch interface {
	Down()
	Up() error
}

// Control returns the handler of the control API (JSON):
//
//	GET    /counts             Counts
//	POST   /counts/reset
//	GET    /requests           [Record], the last few thousand
//	GET    /faults             [RuleState]
//	POST   /faults             [Rule], appended
//	DELETE /faults             all rules end, stalled requests are reset
//	GET    /held?min=N&timeoutMs=T   [Held], once there are N or after T
//	POST   /release            {"id":"1"|"*","discard":bool} → [Released], when all have taken effect
//	POST   /down, /up
//	PUT    /buckets/{name}
//
// Errors are {"error":"…"} with status 4xx or 5xx.
func (p *Proxy) Control(door Switch) http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := f(r)
			writeJSON(w, answer, err)
		})
	}
	route("GET /counts", func(*http.Request) (any, error) { return p.rec.snapshot(), nil })
	route("POST /counts/reset", func(*http.Request) (any, error) { p.rec.reset(); return nil, nil })
	route("GET /requests", func(*http.Request) (any, error) { return p.rec.list(), nil })
	route("GET /faults", func(*http.Request) (any, error) { return p.rules.states(), nil })
	route("POST /faults", p.postFaults)
	route("DELETE /faults", func(*http.Request) (any, error) { p.rules.clear(); return nil, nil })
	route("GET /held", p.getHeld)
	route("POST /release", p.postRelease)
	route("POST /down", func(*http.Request) (any, error) { door.Down(); return nil, nil })
	route("POST /up", func(*http.Request) (any, error) { return nil, door.Up() })
	route("PUT /buckets/{name}", func(r *http.Request) (any, error) {
		if p.opt.CreateBucket == nil {
			return nil, errors.New("this server cannot create buckets")
		}
		return nil, p.opt.CreateBucket(r.Context(), r.PathValue("name"))
	})
	return mux
}

// badRequest is an error of the caller.
type badRequest struct{ error }

func (p *Proxy) postFaults(r *http.Request) (any, error) {
	var list []Rule
	if err := decode(r, &list); err != nil {
		return nil, err
	}
	for _, rule := range list {
		if err := rule.validate(); err != nil {
			return nil, badRequest{err}
		}
	}
	p.rules.add(list)
	return nil, nil
}

func (p *Proxy) getHeld(r *http.Request) (any, error) {
	atLeast, _ := strconv.Atoi(r.FormValue("min"))
	timeout, _ := strconv.Atoi(r.FormValue("timeoutMs"))
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(timeout)*time.Millisecond)
	defer cancel()
	return p.holds.waitFor(ctx, atLeast), nil
}

func (p *Proxy) postRelease(r *http.Request) (any, error) {
	var in struct {
		ID      string `json:"id"`
		Discard bool   `json:"discard"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	out, err := p.holds.release(r.Context(), in.ID, !in.Discard)
	if errors.Is(err, errNotHeld) {
		err = badRequest{err}
	}
	return out, err
}

func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest{err}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, answer any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := http.StatusInternalServerError
		if errors.As(err, new(badRequest)) {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		answer = map[string]string{"error": err.Error()}
	} else if answer == nil {
		answer = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(answer)
}
