// Package scrape owns reading the metrics that processes expose: the text format of
// Prometheus, as far as the project writes it. It keeps nothing and asks nobody.
package scrape

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Sample is one value of a metric.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Samples are the values of metrics, by name.
type Samples map[string][]Sample

// maxLine bounds a line, in bytes, and maxSamples the values of one answer.
const maxLine, maxSamples = 64 << 10, 200_000

// Parse reads the text format.
func Parse(r io.Reader) (Samples, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 4096), maxLine)
	all := Samples{}
	for n := 0; in.Scan(); {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if n++; n > maxSamples {
			return nil, fmt.Errorf("more than %d samples", maxSamples)
		}
		name, s, err := parseSample(line)
		if err != nil {
			return nil, fmt.Errorf("%.60q: %w", line, err)
		}
		all[name] = append(all[name], s)
	}
	return all, in.Err()
}

func parseSample(line string) (string, Sample, error) {
	s := Sample{}
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return "", s, fmt.Errorf("no name and value")
	}
	name, rest := line[:end], line[end:]
	if rest[0] == '{' {
		var err error
		if s.Labels, rest, err = parseLabels(rest[1:]); err != nil {
			return "", s, err
		}
	}
	fields := strings.Fields(rest) // a time may follow
	if len(fields) == 0 {
		return "", s, fmt.Errorf("no value")
	}
	var err error
	s.Value, err = strconv.ParseFloat(fields[0], 64)
	return name, s, err
}

// parseLabels reads up to the closing brace and returns what follows it.
func parseLabels(s string) (map[string]string, string, error) {
	labels := map[string]string{}
	for {
		s = strings.TrimLeft(s, ", \t")
		if rest, ok := strings.CutPrefix(s, "}"); ok {
			return labels, rest, nil
		}
		name, rest, ok := strings.Cut(s, `="`)
		if !ok {
			return nil, "", fmt.Errorf("malformed labels")
		}
		value, rest, ok := cutValue(rest)
		if !ok {
			return nil, "", fmt.Errorf("a label value does not end")
		}
		labels[strings.TrimSpace(name)] = value
		s = rest
	}
}

// cutValue reads a label's value up to its closing quote.
func cutValue(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
			if s[i] == 'n' {
				b.WriteByte('\n')
				continue
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// Sum adds up the values of a metric that have all the labels, given as name and value
// in turn.
func (s Samples) Sum(name string, labels ...string) float64 {
	sum := 0.0
	for _, one := range s[name] {
		matches := true
		for i := 0; i+1 < len(labels); i += 2 {
			matches = matches && one.Labels[labels[i]] == labels[i+1]
		}
		if matches {
			sum += one.Value
		}
	}
	return sum
}
