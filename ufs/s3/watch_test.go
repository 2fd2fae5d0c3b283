package s3_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

func TestQueueRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		code   string
		kind   freshet.Kind
		says   string
	}{
		"expired":    {403, "ExpiredTokenException", freshet.KindPermission, "renew"},
		"denied":     {403, "AccessDeniedException", freshet.KindPermission, "sqs:ReceiveMessage"},
		"denied 400": {400, "AccessDenied", freshet.KindPermission, "sqs:ReceiveMessage"},
		"no SQS":     {404, "", freshet.KindUnavailable, "SQS"},
		"down":       {503, "ServiceUnavailable", freshet.KindUnavailable, ""},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Amz-Target") == "" { // S3
				_, _ = io.WriteString(w, `<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>`)
				return
			}
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, `{"__type":"com.amazonaws.sqs#`+tt.code+`","message":"no"}`)
		}))
		fs := openAt(t, srv.URL, map[string]string{"events": "sqs:" + srv.URL + "/1/q", "retries": "0"}, []string{"127.0.0.0/8"})
		var errs []error
		for _, err := range ufs.WatcherOf(fs).Watch(t.Context(), nil) {
			errs = append(errs, err)
		}
		if len(errs) != 1 {
			t.Errorf("%s: %v", name, errs)
		} else if wantKind(t, errs[0], tt.kind); !strings.Contains(errs[0].Error(), tt.says) {
			t.Errorf("%s: %v", name, errs[0])
		}
		srv.Close()
	}
}

func TestEventsOptions(t *testing.T) {
	t.Parallel()
	open := func(opts map[string]string) (ufs.FS, error) {
		all := map[string]string{"credentials": "anonymous"}
		maps.Copy(all, opts)
		return s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket/p", Options: all}, ufs.Environment{})
	}
	for name, tt := range map[string]struct {
		opts map[string]string
		id   string
	}{
		"queue":          {map[string]string{"events": "sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/q"}, "sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/q"},
		"queue, by test": {map[string]string{"events": "sqs:http://q.example.com:9324/queue/x", "events_endpoint": "https://e.example.com"}, "sqs:http://q.example.com:9324/queue/x"},
		"webhook":        {map[string]string{"events": "webhook", "domain": "other"}, "webhook:s3://bucket"},
	} {
		fs, err := open(tt.opts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if src, err := ufs.WatcherOf(fs).WatchSource(); err != nil || src.ID != tt.id || src.Complete {
			t.Errorf("%s: %+v, %v", name, src, err)
		}
		_ = fs.Close()
	}
	for name, tt := range map[string]struct {
		opts map[string]string
		kind freshet.Kind
	}{
		"another word":        {map[string]string{"events": "queue"}, freshet.KindInvalid},
		"no URL":              {map[string]string{"events": "sqs:freshet"}, freshet.KindInvalid},
		"no account":          {map[string]string{"events": "sqs:https://sqs.eu-central-1.amazonaws.com/q"}, freshet.KindInvalid},
		"query":               {map[string]string{"events": "sqs:https://h.example.com/1/q?x=1"}, freshet.KindInvalid},
		"credentials":         {map[string]string{"events": "sqs:https://u:p@h.example.com/1/q"}, freshet.KindInvalid},
		"metadata service":    {map[string]string{"events": "sqs:http://169.254.169.254/1/q"}, freshet.KindPermission},
		"endpoint not needed": {map[string]string{"events": "webhook", "events_endpoint": "https://e.example.com"}, freshet.KindInvalid},
		"endpoint is local":   {map[string]string{"events": "sqs:https://h.example.com/1/q", "events_endpoint": "http://127.0.0.1:1"}, freshet.KindPermission},
	} {
		_, err := open(tt.opts)
		if !freshet.IsKind(err, tt.kind) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v", name, err)
		}
	}
	fs, err := open(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ufs.WatcherOf(fs).WatchSource()
	wantKind(t, err, freshet.KindInvalid)
}
