package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
)

// print writes m: as JSON or YAML in the form that REST has, else as the table
// that draw makes.
func (a *app) print(m proto.Message, draw func(t *table)) error {
	if a.output == "table" {
		return a.draw(draw)
	}
	b, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
	}
	return a.structured(b)
}

// printValue is print for what is no message. As in the form of messages, integers of 64
// bits are strings: readers that know only floating point lose digits of others.
func (a *app) printValue(v any, draw func(t *table)) error {
	if a.output == "table" {
		return a.draw(draw)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
	}
	return a.structured(b)
}

func (a *app) draw(draw func(t *table)) error {
	t := &table{w: tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)}
	draw(t)
	return t.flush()
}

func (a *app) structured(b []byte) error {
	if a.output == "yaml" {
		y, err := jsonToYAML(b)
		if err != nil {
			return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
		}
		_, err = a.Out.Write(y)
		return err
	}
	// protojson varies its white space on purpose; people and scripts want one form.
	var buf bytes.Buffer
	if err := json.Indent(&buf, b, "", "  "); err != nil {
		return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
	}
	buf.WriteByte('\n')
	_, err := a.Out.Write(buf.Bytes())
	return err
}

// jsonToYAML keeps the order of the keys: JSON is YAML, but for its style.
func jsonToYAML(b []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	plain(&doc)
	return yaml.Marshal(&doc)
}

// plain drops the braces and the quotes that are not needed.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

// table writes aligned columns.
type table struct {
	w   *tabwriter.Writer
	err error
}

// row writes one line of cells; control characters in them are made visible.
func (t *table) row(cells ...any) {
	parts := make([]string, len(cells))
	for i, c := range cells {
		parts[i] = safe(fmt.Sprint(c))
	}
	t.line(strings.Join(parts, "\t"))
}

func (t *table) line(s string) {
	if _, err := io.WriteString(t.w, s+"\n"); err != nil && t.err == nil {
		t.err = err
	}
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	return t.err
}

// safe keeps names from steering the terminal.
func safe(s string) string {
	if strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafeRune(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unsafeRune(r rune) bool {
	return r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format("2006-01-02T15:04:05Z")
}

func ageText(d *durationpb.Duration) string {
	if d == nil {
		return "never"
	}
	return shortDuration(d.AsDuration())
}

// agoText is ageText for what lies in the past.
func agoText(d *durationpb.Duration) string {
	if d == nil {
		return "never"
	}
	return ageText(d) + " ago"
}

func shortDuration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.String()
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}

// countText writes a number of things for people.
func countText[N int | int32 | int64 | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// note writes a message for people, on stderr.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }
