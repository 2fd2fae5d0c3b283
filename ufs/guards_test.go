package ufs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func TestParseGuards(t *testing.T) {
	t.Parallel()
	usual := ufs.Guards{BreakerFailures: 10, BreakerPause: 5 * time.Second}
	for _, tc := range []struct {
		options map[string]string
		want    ufs.Guards
		text    string
	}{
		{nil, usual, ""},
		{map[string]string{"endpoint": "http://x", "region": "y"}, usual, ""},
		{map[string]string{"max_requests_per_second": "100", "max_concurrent_requests": "8", "breaker_failures": "0", "breaker_pause": "1m"}, ufs.Guards{RequestsPerSecond: 100, ConcurrentRequests: 8, BreakerPause: time.Minute}, ""},
		{map[string]string{"max_requests_per_second": "many"}, ufs.Guards{}, `'max_requests_per_second' of every storage: "many" is not a whole number; allowed is 0 to 1000000`},
		{map[string]string{"max_concurrent_requests": "-1"}, ufs.Guards{}, "allowed is 0 to 100000"},
		{map[string]string{"breaker_pause": "1ms"}, ufs.Guards{}, "allowed is 100ms to 1h0m0s"},
	} {
		got, err := ufs.ParseGuards(tc.options)
		if got != tc.want {
			t.Errorf("%v: got %+v, want %+v", tc.options, got, tc.want)
		}
		if (err != nil) != (tc.text != "") || err != nil && (!freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), tc.text)) {
			t.Errorf("%v: got error %v, want %q", tc.options, err, tc.text)
		}
	}
}

// TestEveryStorageKnowsTheGuards: a driver that takes the common options takes
// these too.
func TestEveryStorageKnowsTheGuards(t *testing.T) {
	t.Parallel()
	v, err := ufs.CommonOptions(0).Check("x", map[string]string{"max_requests_per_second": "7"})
	if err != nil {
		t.Fatal(err)
	}
	if n := v.Int(ufs.OptionMaxRequestsPerSecond); n != 7 {
		t.Errorf("got %d", n)
	}
}
