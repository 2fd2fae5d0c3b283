package journal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLog writes what Raft logs to a slog.Logger. The methods that nobody calls
// are those of the null logger.
type raftLog struct {
	hclog.Logger
	to   *slog.Logger
	name string
	args []any
}

func newRaftLog(to *slog.Logger) *raftLog {
	return &raftLog{Logger: hclog.NewNullLogger(), to: to, name: "raft"}
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	target := slogLevel(level)
	if msg == noLeaderYet && !knownLeader(args) {
		target = slog.LevelInfo // so does every cluster begin
	}
	handler := l.to.Handler()
	ctx := context.Background()
	if level == hclog.Off || !handler.Enabled(ctx, target) {
		return
	}
	// The message is Raft's, not ours, so it is an attribute of a constant one.
	record := slog.NewRecord(time.Now(), target, "raft", 0)
	record.AddAttrs(slog.String("event", msg))
	all := append(append([]any{}, l.args...), args...)
	for i := 0; i+1 < len(all); i += 2 {
		key := strings.ReplaceAll(fmt.Sprint(all[i]), "-", "_")
		record.AddAttrs(slog.Any(key, plain(all[i+1])))
	}
	//nolint:errcheck // there is nowhere to report that a log can't be written
	_ = handler.Handle(ctx, record)
}

// noLeaderYet is what Raft logs when a follower hears no leader. That is worth a
// warning when there was one.
const noLeaderYet = "heartbeat timeout reached, starting election"

func knownLeader(args []any) bool {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "last-leader-id" {
			return fmt.Sprint(args[i+1]) != ""
		}
	}
	return false
}

// plain makes of a value what reads well in any handler.
func plain(v any) any {
	switch v := v.(type) {
	case hclog.Format:
		if len(v) > 0 {
			if format, ok := v[0].(string); ok {
				return fmt.Sprintf(format, v[1:]...)
			}
		}
		return fmt.Sprint(v...)
	case error:
		return v.Error()
	case fmt.Stringer:
		return v.String()
	default:
		return v
	}
}

// slogLevel lowers Raft's levels by one step except for errors: elections and
// replication are its normal life, and warnings of ours are for operators.
func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Error, hclog.Warn:
		return slog.LevelWarn
	case hclog.Info:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

func (l *raftLog) Trace(string, ...any)          {}
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l *raftLog) Name() string                  { return l.name }
func (l *raftLog) ImpliedArgs() []any            { return l.args }

func (l *raftLog) IsTrace() bool { return false }
func (l *raftLog) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *raftLog) IsInfo() bool  { return l.to.Enabled(context.Background(), slog.LevelInfo) }
func (l *raftLog) IsWarn() bool  { return true }
func (l *raftLog) IsError() bool { return true }

func (l *raftLog) With(args ...any) hclog.Logger {
	c := *l
	c.args = append(append([]any{}, l.args...), args...)
	return &c
}

func (l *raftLog) Named(name string) hclog.Logger      { return l.ResetNamed(l.name + "." + name) }
func (l *raftLog) ResetNamed(name string) hclog.Logger { c := *l; c.name = name; return &c }

func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
