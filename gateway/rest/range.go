package rest

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/freshet-io/freshet"
)

// rangeOf returns the bytes to send and the status: 206 for one satisfiable
// range, 416 for one outside the file, else 200 and the whole file: a malformed
// Range, several ranges, or an If-Range that names another version are ignored,
// as RFC 9110 allows.
func rangeOf(r *http.Request, info freshet.Info) (start, n int64, status int) {
	whole := func() (int64, int64, int) { return 0, info.Length, http.StatusOK }
	spec := r.Header.Get("Range")
	if spec == "" {
		return whole()
	}
	if cond := r.Header.Get("If-Range"); cond != "" && cond != info.Fingerprint.ETag() {
		return whole()
	}
	first, last, ok := parseRange(spec)
	if !ok {
		return whole()
	}
	switch {
	case first < 0: // the last -first bytes
		if last == 0 || info.Length == 0 {
			return 0, 0, http.StatusRequestedRangeNotSatisfiable
		}
		n = min(last, info.Length)
		return info.Length - n, n, http.StatusPartialContent
	case first >= info.Length:
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	case last < 0 || last >= info.Length:
		last = info.Length - 1
	}
	return first, last - first + 1, http.StatusPartialContent
}

// parseRange reads one range: "a-b" gives (a, b), "a-" gives (a, -1) and "-n"
// gives (-1, n).
func parseRange(spec string) (first, last int64, ok bool) {
	spec, found := strings.CutPrefix(spec, "bytes=")
	if !found || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	a, b, found := strings.Cut(strings.TrimSpace(spec), "-")
	if !found {
		return 0, 0, false
	}
	if a == "" {
		n, ok := digits(b)
		return -1, n, ok
	}
	if first, ok = digits(a); !ok {
		return 0, 0, false
	}
	if b == "" {
		return first, -1, true
	}
	if last, ok = digits(b); !ok || last < first {
		return 0, 0, false
	}
	return first, last, true
}

func digits(s string) (int64, bool) {
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}

func contentRange(start, n, size int64) string {
	return "bytes " + strconv.FormatInt(start, 10) + "-" + strconv.FormatInt(start+n-1, 10) + "/" + strconv.FormatInt(size, 10)
}
