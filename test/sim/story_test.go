package sim_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// story is the timeline of a seed: what was done, what went wrong on purpose, and
// what the parts logged.
type story struct {
	start time.Time

	mu     sync.Mutex
	lines  []line
	bad    []string // what broke a rule
	about  map[string]bool
	given  map[string]bool // operations that were given up
	unsure map[string]bool // operations of which a leader does not know whether it gave them up
	landed map[string]int  // how often a leader saw that one had landed after it was resolved
}

type line struct {
	at   time.Duration
	key  string // of the bucket; "" for what concerns everything
	text string
}

func (s *story) add(format string, args ...any) { s.addAbout("", format, args...) }

func (s *story) addAbout(key, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line{time.Since(s.start), key, fmt.Sprintf(format, args...)})
}

// violation writes down that a rule was broken.
func (w *world) violation(key, format string, args ...any) {
	w.story.addAbout(key, "VIOLATION: "+format, args...)
	w.story.mu.Lock()
	defer w.story.mu.Unlock()
	if w.story.about == nil {
		w.story.about = map[string]bool{}
	}
	w.story.about[key] = true
	w.story.bad = append(w.story.bad, fmt.Sprintf("%8.3fs ", time.Since(w.start).Seconds())+fmt.Sprintf(format, args...))
}

// failed reports whether a rule was broken.
func (w *world) failed() bool {
	w.story.mu.Lock()
	defer w.story.mu.Unlock()
	return len(w.story.bad) > 0
}

// print returns the timeline: faults, warnings, and what concerns the keys at
// which a rule was broken.
func (s *story) print() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := os.Getenv("FRESHET_SIM_LOG") != ""
	var out strings.Builder
	for _, l := range s.lines {
		show := all || l.key == ""
		for about := range s.about {
			show = show || (about != "" && (covers(l.key, about) || covers(about, l.key)))
		}
		if show {
			fmt.Fprintf(&out, "%9.3fs %s\n", l.at.Seconds(), l.text)
		}
	}
	return out.String()
}

// giveUp notes that a leader gave an operation up without its writer's word.
func (s *story) giveUp(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given == nil {
		s.given = map[string]bool{}
	}
	s.given[op] = true
}

func (s *story) givenUp(op string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given[op]
}

// land notes that a leader saw that an operation had landed after it was resolved.
func (s *story) land(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.landed == nil {
		s.landed = map[string]int{}
	}
	s.landed[op]++
}

func (s *story) landings(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.landed[op]
}

// leaveUnsure notes that a leader does not know whether it gave an operation up.
func (s *story) leaveUnsure(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsure == nil {
		s.unsure = map[string]bool{}
	}
	s.unsure[op] = true
}

func (s *story) leftUnsure(op string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsure[op]
}

// storyLog is the log of one part.
type storyLog struct {
	*story
	attrs string
}

// Enabled implements slog.Handler.
func (s *story) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || os.Getenv("FRESHET_SIM_LOG") == "debug"
}

// Handle implements slog.Handler.
func (s *story) Handle(ctx context.Context, r slog.Record) error {
	return storyLog{s, ""}.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s *story) WithAttrs(attrs []slog.Attr) slog.Handler { return storyLog{s, ""}.WithAttrs(attrs) }

// WithGroup implements slog.Handler.
func (s *story) WithGroup(string) slog.Handler { return s }

// Handle implements slog.Handler.
func (s storyLog) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(s.attrs)
	op, unknown := "", false
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&text, " %s", a)
		if a.Key == "op" {
			op = a.Value.String()
		}
		unknown = unknown || a.Key == "error" && strings.Contains(a.Value.String(), "the outcome is unknown")
		return true
	})
	switch {
	case strings.HasPrefix(r.Message, "operation resolved"):
		s.giveUp(op)
	case strings.HasPrefix(r.Message, "operation landed after it was resolved"):
		s.land(op)
	case strings.HasPrefix(r.Message, "an operation could not be resolved yet") && unknown:
		s.leaveUnsure(op)
	}
	s.add("  log %s %s%s", r.Level, r.Message, &text)
	return nil
}

// WithAttrs implements slog.Handler.
func (s storyLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		s.attrs += " " + a.String()
	}
	return s
}

// WithGroup implements slog.Handler.
func (s storyLog) WithGroup(string) slog.Handler { return s }
