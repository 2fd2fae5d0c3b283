package azblob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

const (
	maxConns = 256 // to one endpoint
	// secretLife is how long a value read from a reference is used.
	secretLife = 5 * time.Minute
)

// Open returns the FS of spec. It reads secrets but does not contact the storage.
func (o *Opener) Open(spec ufs.Spec, env ufs.Environment) (ufs.FS, error) {
	return o.open(spec, env, nil)
}

// open takes tokens from token, or, if that is nil, from where the options say.
func (o *Opener) open(spec ufs.Spec, env ufs.Environment, token azcore.TokenCredential) (ufs.FS, error) {
	const op = "open azure mount"
	cfg, _, err := parse(spec)
	if err != nil {
		return nil, err
	}
	env = withDefaults(env)
	policy, err := env.EndpointPolicy()
	if err != nil {
		return nil, err
	}
	if cfg.ownEndpoint {
		if err := policy.CheckURL(cfg.origin()); err != nil {
			return nil, err
		}
	}
	transport := policy.Transport()
	transport.MaxConnsPerHost = maxConns
	if cfg.caFile != "" {
		if transport.TLSClientConfig, err = httpclient.Trust(cfg.caFile); err != nil {
			return nil, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: fmt.Errorf("option 'ca_file': %w", err)}
		}
	}
	s := &store{cfg: cfg, token: token, http: &http.Client{Transport: &httpclient.Transport{Base: transport, Timeout: cfg.timeout}, CheckRedirect: ufs.RefuseRedirect}}
	if err := s.connect(env, policy); err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	return &fileSystem{
		FS:     object.New(s, object.Options{Root: cfg.root, Log: o.log, Skips: o.skips, Buffers: env.Buffers}),
		Hooked: events.NewHooked(cfg.events, cfg.place()),
	}, nil
}

// fileSystem is a prefix of a container that may be told of changes.
type fileSystem struct {
	*object.FS
	events.Hooked
}

func withDefaults(env ufs.Environment) ufs.Environment {
	if env.Getenv == nil {
		env.Getenv = func(string) string { return "" }
	}
	return env
}

// connect makes the client, whose own retries are off: a context turns them on.
func (s *store) connect(env ufs.Environment, endpoints ufs.EndpointPolicy) error {
	opts := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: &doer{s.http},
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{ApplicationID: "freshet"},
	}}
	address, err := url.JoinPath(s.cfg.endpoint, s.cfg.container)
	if err != nil {
		return err
	}
	switch c := s.cfg; {
	case c.accountKey != "":
		secret := newSecret(c.accountKey, env)
		key, err := secret.get()
		if err != nil {
			return err
		}
		shared, err := container.NewSharedKeyCredential(c.account, key)
		if err != nil {
			return freshet.Errorf(freshet.KindInvalid, "", "", "option 'account_key': the reference does not lead to a key in base64")
		}
		secret.changed = func(key string) error {
			if shared.SetAccountKey(key) != nil {
				return freshet.Errorf(freshet.KindPermission, "", "", "option 'account_key': the reference does not lead to a key in base64 any more")
			}
			return nil
		}
		opts.PerCallPolicies = append(opts.PerCallPolicies, policyFunc(func(*policy.Request) error { _, err := secret.get(); return err }))
		s.api, err = container.NewClientWithSharedKeyCredential(address, shared, opts)
		return err
	case c.sas != "":
		s.sas = newSecret(c.sas, env)
		if _, err := s.sas.get(); err != nil {
			return err
		}
		opts.PerRetryPolicies = append(opts.PerRetryPolicies, policyFunc(s.sign))
		s.api, err = container.NewClientWithNoCredential(address, opts)
		return err
	case c.clientSecret == "" && c.credentials == credAnonymous:
		s.api, err = container.NewClientWithNoCredential(address, opts)
		return err
	}
	if s.token == nil {
		if s.token, err = s.identity(env, endpoints); err != nil {
			return err
		}
	}
	s.api, err = container.NewClient(address, &explained{TokenCredential: s.token}, opts)
	return err
}

// policyFunc is a step of the SDK's pipeline before the request goes on.
type policyFunc func(*policy.Request) error

// Do implements policy.Policy.
func (f policyFunc) Do(req *policy.Request) (*http.Response, error) {
	if err := f(req); err != nil {
		return nil, &refusedError{ufs.NotSent(err)}
	}
	return req.Next()
}

// sign adds the shared access signature.
func (s *store) sign(req *policy.Request) error {
	sas, err := s.sas.get()
	if err != nil {
		return err
	}
	u := req.Raw().URL
	if u.RawQuery != "" {
		sas = u.RawQuery + "&" + sas
	}
	u.RawQuery = sas
	return nil
}

// secretCache reads a reference, again after secretLife: a file may have been
// replaced.
type secretCache struct {
	ref     string
	env     ufs.Environment
	changed func(value string) error

	mu    sync.Mutex
	value string
	until time.Time
}

func newSecret(ref string, env ufs.Environment) *secretCache { return &secretCache{ref: ref, env: env} }

func (c *secretCache) get() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.value, nil
	}
	ref, err := ufs.ParseSecretRef(c.ref)
	if err != nil {
		return "", err
	}
	secret, err := c.env.Secret(ref)
	if err != nil {
		return "", err
	}
	value := strings.TrimPrefix(strings.TrimSpace(secret.Reveal()), "?")
	if value != c.value && c.value != "" && c.changed != nil {
		if err := c.changed(value); err != nil {
			return "", err
		}
	}
	c.value, c.until = value, time.Now().Add(secretLife)
	return value, nil
}

// identity returns who asks for tokens. Only a managed identity is asked of the
// machine, and only on request: elsewhere than at Azure the question hangs.
func (s *store) identity(env ufs.Environment, endpoints ufs.EndpointPolicy) (azcore.TokenCredential, error) {
	const op = "get credentials"
	c := s.cfg
	s.tokens = &http.Client{Transport: endpoints.Transport(), CheckRedirect: ufs.RefuseRedirect}
	opts := azcore.ClientOptions{Transport: s.tokens, Cloud: cloudOf(c.endpoint)}
	var token azcore.TokenCredential
	var err error
	switch {
	case c.clientSecret != "":
		var secret string
		if secret, err = newSecret(c.clientSecret, env).get(); err == nil {
			token, err = azidentity.NewClientSecretCredential(c.tenantID, c.clientID, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: opts})
		}
	case c.credentials == credManaged:
		managed := &azidentity.ManagedIdentityCredentialOptions{} // its address is link-local, which the policy would refuse
		if c.clientID != "" {
			managed.ID = azidentity.ClientID(c.clientID)
		}
		token, err = azidentity.NewManagedIdentityCredential(managed)
	case c.credentials == credWorkload, env.Getenv("AZURE_FEDERATED_TOKEN_FILE") != "" && env.Getenv("AZURE_CLIENT_SECRET") == "":
		token, err = azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: opts, ClientID: c.clientID, TenantID: c.tenantID})
	default:
		token, err = azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{ClientOptions: opts})
	}
	if err != nil && freshet.KindOf(err) == freshet.KindInternal {
		err = &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: fmt.Errorf(
			"no Azure credentials: set option account_key, sas, client_secret or credentials, or the usual AZURE_ variables in the server's environment: %s", firstLine(err))}
	}
	return token, err
}

func cloudOf(endpoint string) cloud.Configuration {
	switch {
	case strings.HasSuffix(endpoint, ".core.chinacloudapi.cn"):
		return cloud.AzureChina
	case strings.HasSuffix(endpoint, ".core.usgovcloudapi.net"):
		return cloud.AzureGovernment
	}
	return cloud.AzurePublic
}

// identityError says that there was no token: nothing was sent to the storage.
type identityError struct {
	err     error
	passing bool
}

func (e *identityError) Error() string { return firstLine(e.err) }
func (e *identityError) Unwrap() error { return e.err }

// NonRetriable keeps the SDK from asking again at once.
func (*identityError) NonRetriable() {}

func (e *identityError) classify() (freshet.Kind, string) {
	if e.passing {
		return freshet.KindUnavailable, "the token for the storage can't be had or renewed now: " + e.Error()
	}
	return freshet.KindPermission, "no token for the storage: check the options credentials, tenant_id, client_id and client_secret: " + e.Error()
}

// explained says what to do when there is no token.
type explained struct {
	azcore.TokenCredential
	had atomic.Bool
}

// GetToken implements azcore.TokenCredential.
func (e *explained) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := e.TokenCredential.GetToken(ctx, opts)
	if err == nil {
		e.had.Store(true)
		return token, nil
	}
	refused, ok := errors.AsType[*azidentity.AuthenticationFailedError](err)
	definite := ok && refused.RawResponse != nil && refused.RawResponse.StatusCode < http.StatusInternalServerError
	return token, &identityError{err: err, passing: !definite && (e.had.Load() || ok) || ctx.Err() != nil}
}
