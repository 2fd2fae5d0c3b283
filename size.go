package freshet

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// Sizes of blocks in bytes. A policy takes multiples of MinBlockSize.
const (
	DefaultBlockSize = 64 << 20
	MinBlockSize     = 64 << 10
	MaxBlockSize     = 1 << 30
)

// MaxBlocks is how many blocks one version of a file can have.
const MaxBlocks = 1 << 32

// ParseBlockSize reads a size as ParseSize does. KindInvalid for one that a policy
// can't set: out of bounds, or no multiple of MinBlockSize.
func ParseBlockSize(s string) (int64, error) {
	n, err := ParseSize(s)
	if err == nil && n >= MinBlockSize && n <= MaxBlockSize && n%MinBlockSize == 0 {
		return n, nil
	}
	return 0, Errorf(KindInvalid, "parse block size", "", "%q is not a block size: use a multiple of %s up to %s, such as %q",
		shortened(s), FormatSize(MinBlockSize), FormatSize(MaxBlockSize), FormatSize(DefaultBlockSize))
}

func sizeUnits() []string { return []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"} }

// ParseSize reads a size in bytes: a whole number, alone or with one of the
// units B, KiB, MiB, GiB, TiB, PiB.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRightFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	unit := strings.TrimSpace(s[len(digits):])
	shift := slices.Index(sizeUnits(), unit) * 10
	n, err := strconv.ParseInt(digits, 10, 64)
	if unit == "" {
		shift = 0
	}
	if err != nil || shift < 0 || n < 0 || digits[0] == '+' || n > math.MaxInt64>>shift {
		return 0, Errorf(KindInvalid, "parse size", "", "%q is not a size in bytes such as 65536, 64KiB or 8GiB", shortened(s))
	}
	return n << shift, nil
}

func shortened(s string) string {
	if len(s) <= 40 {
		return s
	}
	return s[:37] + "..."
}

// FormatSize returns the shortest text that ParseSize reads as n.
func FormatSize(n int64) string {
	units := sizeUnits()
	i := 0
	for i < len(units)-1 && n != 0 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + units[i]
}
