package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind is what an operation of a trace does.
type Kind string

// The kinds of operation.
const (
	Read  Kind = "read"
	Write Kind = "write"
	Stat  Kind = "stat"
	List  Kind = "list"
)

// Record is one line of a trace.
type Record struct {
	At     time.Duration // since the beginning of the trace
	Kind   Kind
	Path   string
	Offset int64 // bytes
	Length int64 // bytes; < 0: to the end
}

// Bounds of a trace.
const (
	MaxRecords = 5_000_000
	maxLine    = 16 << 10
)

// ParseTrace reads a trace: a record in each line,
//
//	TIME OP PATH [OFFSET LENGTH]
//
// TIME is in seconds, with or without a fraction, and never smaller than that of the
// line before. OP is read, write, stat or list; a write has the offset 0. A path with
// spaces stands in double quotes, as Go writes strings. Empty lines, and lines that begin
// with "#", are skipped. The error names the line.
func ParseTrace(r io.Reader) ([]Record, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 4096), maxLine)
	var all []Record
	line := 0
	for in.Scan() {
		line++
		text := strings.TrimSpace(in.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		rec, err := parseRecord(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: %w", line, err)
		case len(all) > 0 && rec.At < all[len(all)-1].At:
			return nil, fmt.Errorf("line %d: its time is before that of the record above: sort the trace", line)
		case len(all) == MaxRecords:
			return nil, fmt.Errorf("line %d: more than %d records", line, MaxRecords)
		}
		all = append(all, rec)
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d: longer than %d bytes", line+1, maxLine)
	}
	if in.Err() != nil {
		return nil, in.Err()
	}
	if len(all) == 0 {
		return nil, errors.New("the trace has no records")
	}
	return all, nil
}

// maxSeconds is the longest time of a record: about three years.
const maxSeconds = 1e8

func parseRecord(text string) (Record, error) {
	at, rest := cutField(text)
	seconds, err := strconv.ParseFloat(at, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 || seconds > maxSeconds {
		return Record{}, fmt.Errorf("%.40q is not a time in seconds", at)
	}
	kind, rest := cutField(rest)
	rec := Record{At: time.Duration(seconds * float64(time.Second)), Kind: Kind(kind), Length: -1}
	switch rec.Kind {
	case Read, Write, Stat, List:
	default:
		return rec, fmt.Errorf("%.40q is not an operation: use read, write, stat or list", kind)
	}
	if strings.HasPrefix(rest, `"`) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err == nil {
			rec.Path, err = strconv.Unquote(quoted)
		}
		if err != nil {
			return rec, errors.New("the quotes of the path are not closed, or have something malformed between them")
		}
		rest = strings.TrimSpace(rest[len(quoted):])
	} else {
		rec.Path, rest = cutField(rest)
	}
	if rec.Path == "" {
		return rec, errors.New("the path is missing")
	}
	if fields := strings.Fields(rest); len(fields) > 0 {
		if err := rec.span(fields); err != nil {
			return rec, err
		}
	}
	if rec.Kind == Write && (rec.Offset != 0 || rec.Length < 0) {
		return rec, errors.New("a write needs the offset 0 and a length: files are written whole")
	}
	return rec, nil
}

// span reads offset and length.
func (r *Record) span(fields []string) error {
	if len(fields) != 2 || (r.Kind != Read && r.Kind != Write) {
		return fmt.Errorf("%d fields follow the path: a read and a write have an offset and a length, others have nothing", len(fields))
	}
	var err error
	if r.Offset, err = strconv.ParseInt(fields[0], 10, 64); err != nil || r.Offset < 0 {
		return fmt.Errorf("%.40q is not an offset in bytes", fields[0])
	}
	if r.Length, err = strconv.ParseInt(fields[1], 10, 64); err != nil || r.Length > math.MaxInt64-r.Offset {
		return fmt.Errorf("%.40q is not a length in bytes", fields[1])
	}
	r.Length = max(r.Length, -1)
	return nil
}

// cutField splits at the first white space.
func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// Sizes returns how long the files that a trace reads and does not write before must be
// at least, by path.
func Sizes(all []Record) map[string]int64 {
	sizes, written := map[string]int64{}, map[string]bool{}
	for _, r := range all {
		switch {
		case r.Kind == Write:
			written[r.Path] = true
		case r.Kind == Read || r.Kind == Stat:
			if !written[r.Path] {
				sizes[r.Path] = max(sizes[r.Path], r.Offset+max(r.Length, 0))
			}
		}
	}
	return sizes
}
