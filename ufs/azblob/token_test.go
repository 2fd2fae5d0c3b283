package azblob_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/azblob"
)

// tokens gives one that has to be renewed at once, or err.
type tokens struct{ err atomic.Pointer[error] }

func (c *tokens) fail(err error) { c.err.Store(&err) }

func (c *tokens) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if err := c.err.Load(); err != nil && *err != nil {
		return azcore.AccessToken{}, *err
	}
	return azcore.AccessToken{Token: "secret-token", ExpiresOn: time.Now().Add(time.Millisecond)}, nil
}

// A token goes to the endpoint that the option's certificate authority vouches
// for. Why there is none is told apart: a refusal, or something that may pass. In
// both cases nothing was sent to the storage.
func TestTokens(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer secret-token" {
			t.Errorf("authorization %q", r.Header.Get("Authorization"))
		}
		w.Header().Set("ETag", `"0x1"`)
		w.Header().Set("Content-Length", "5")
	}))
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	env := ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}}
	refused := &azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: http.StatusUnauthorized, Request: httptest.NewRequest(http.MethodPost, "/", nil), Body: http.NoBody}}
	down := &azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: http.StatusBadGateway, Request: httptest.NewRequest(http.MethodPost, "/", nil), Body: http.NoBody}}
	for _, c := range []struct {
		name   string
		before bool // there was a token before
		err    error
		kind   freshet.Kind
	}{
		{"refused", false, refused, freshet.KindPermission},
		{"refused now", true, refused, freshet.KindPermission},
		{"none", false, errors.New("no identity is assigned"), freshet.KindPermission},
		{"down", false, down, freshet.KindUnavailable},
		{"gone", true, errors.New("no route to host"), freshet.KindUnavailable},
	} {
		source := &tokens{}
		fs, err := azblob.NewOpener(azblob.Options{}).OpenWithToken(ufs.Spec{URI: "abfs://data@acct/x", Options: map[string]string{"endpoint": srv.URL, "ca_file": ca}}, env, source)
		if err != nil {
			t.Fatal(err)
		}
		if c.before {
			if st, err := fs.Stat(t.Context(), "f"); err != nil || st.Length != 5 {
				t.Errorf("%s: before: %+v, %v", c.name, st, err)
			}
		}
		source.fail(c.err)
		n := asked.Load()
		_, err = fs.Stat(t.Context(), "f")
		wantKind(t, c.name, err, c.kind)
		_, err = write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
		wantKind(t, c.name, err, c.kind)
		if !errors.Is(err, ufs.ErrNotSent) || asked.Load() != n {
			t.Errorf("%s: %v; %d requests were sent", c.name, err, asked.Load()-n)
		}
		if strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s: the error shows the token: %v", c.name, err)
		}
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}
}
