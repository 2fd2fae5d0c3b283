package gcs

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

const defaultEndpoint = "https://storage.googleapis.com"

// maxConns is how many connections one mount has to its endpoint.
const maxConns = 256

// fileSystem is a prefix of a bucket that may be told of changes.
type fileSystem struct {
	*object.FS
	events.Hooked
}

// Open returns the FS of spec. It reads credentials but does not contact the
// storage.
func (o *Opener) Open(spec ufs.Spec, env ufs.Environment) (ufs.FS, error) {
	const op = "open gs mount"
	p, err := parse(spec)
	if err != nil {
		return nil, err
	}
	policy, err := env.EndpointPolicy()
	if err != nil {
		return nil, err
	}
	if p.endpoint != "" {
		if err := policy.CheckURL(p.endpoint); err != nil {
			return nil, err
		}
	}
	base := policy.Transport()
	base.MaxConnsPerHost = maxConns
	if p.caFile != "" {
		if base.TLSClientConfig, err = httpclient.Trust(p.caFile); err != nil {
			return nil, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: fmt.Errorf("option 'ca_file': %w", err)}
		}
	}
	s := &store{
		bucket: p.bucket,
		limits: object.Limits{
			Kind: "gcs", Bucket: p.bucket, ListPage: 1000, SinglePut: p.partSize, PartSize: p.partSize, MaxParts: 0,
			// A resumable upload takes its chunks one after the other.
			Concurrency: 1, DeleteBatch: deleteBatch,
			IfAbsent: true, IfMatch: true, OperationMark: true,
			ModTimeResolution: modTimeResolution, MaxOpLifetime: p.maxOpLifetime,
		},
		timeout: p.requestTimeout,
	}
	if err := s.connect(p, env, base); err != nil {
		return nil, err
	}
	place := ufs.Place{Authority: scheme + "://" + p.bucket, Key: "/" + strings.TrimSuffix(p.root, "/")}
	return &fileSystem{
		FS:     object.New(s, object.Options{Root: p.root, Log: o.log, Skips: o.skips, Buffers: env.Buffers}),
		Hooked: events.NewHooked(p.events, place),
	}, nil
}

// connect makes the client. Google's libraries would retry, follow redirects and
// find an endpoint in the environment by themselves; all three are ours to decide.
func (s *store) connect(p parsed, env ufs.Environment, base *http.Transport) error {
	const op = "open gs mount"
	auth := []option.ClientOption{option.WithScopes(storage.ScopeFullControl), option.WithTelemetryDisabled()}
	switch p.credentials {
	case credEnv:
	case credAnonymous:
		auth = append(auth, option.WithoutAuthentication())
	default:
		ref, err := ufs.ParseSecretRef(p.credentials)
		if err != nil {
			return &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
		}
		key, err := env.Secret(ref)
		if err != nil {
			return err
		}
		auth = append(auth, option.WithAuthCredentialsJSON(option.ServiceAccount, []byte(key.Reveal())))
	}
	ctx := context.Background() // of tokens that are renewed as long as the mount lives
	transport, err := htransport.NewTransport(ctx, &httpclient.Transport{Base: base, Timeout: p.requestTimeout}, auth...)
	if err != nil {
		return freshet.Errorf(freshet.KindInvalid, op, "", "credentials of the mount can't be used: set the option credentials (%w)", err)
	}
	s.http = &http.Client{Transport: insight{transport}, CheckRedirect: ufs.RefuseRedirect}
	opts := []option.ClientOption{
		option.WithHTTPClient(s.http),
		option.WithTelemetryDisabled(),
		option.WithEndpoint(strings.TrimSuffix(cmp.Or(p.endpoint, defaultEndpoint), "/") + "/storage/v1/"),
	}
	if s.client, err = storage.NewClient(ctx, opts...); err != nil {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%w", err)
	}
	s.client.SetRetry(storage.WithPolicy(storage.RetryNever))
	s.api = s.client.Bucket(p.bucket)
	if p.userProject != "" {
		s.api = s.api.UserProject(p.userProject)
	}
	return nil
}
