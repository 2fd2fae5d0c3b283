package config

import (
	"time"

	"github.com/freshet-io/freshet"
)

// Duration is the text of a Go duration in a file, such as "300ms".
type Duration string

// Value returns the duration, which must have been validated.
func (d Duration) Value() time.Duration {
	v, _ := d.parse() // validated
	return v
}

func (d Duration) parse() (time.Duration, error) {
	v, err := time.ParseDuration(string(d))
	if err != nil || v < 0 {
		return 0, freshet.Errorf(freshet.KindInvalid, "read duration", "", "%q is not a duration such as \"300ms\" or \"1s\"", string(d))
	}
	return v, nil
}

// Size is the text of a number of bytes in a file, such as "64MiB".
type Size string

// Bytes returns the size, which must have been validated.
func (s Size) Bytes() int64 {
	v, _ := freshet.ParseSize(string(s)) // validated
	return v
}
