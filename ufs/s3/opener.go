package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	defaultRegion = "us-east-1"
	maxConns      = 256 // to one endpoint
	// secretLife is how long a value read from a secret file is used.
	secretLife = 5 * time.Minute
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// Open returns the FS of spec. It reads secrets and configuration files but does
// not contact the storage.
func (o *Opener) Open(spec ufs.Spec, env ufs.Environment) (ufs.FS, error) {
	const op = "open s3 mount"
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
	transport := policy.Transport()
	transport.MaxConnsPerHost = maxConns
	if p.caFile != "" {
		if transport.TLSClientConfig, err = trust(p.caFile); err != nil {
			return nil, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: fmt.Errorf("option 'ca_file': %w", err)}
		}
	}
	creds, region, err := identity(p.config, env)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: transport, CheckRedirect: ufs.RefuseRedirect}
	f := &FS{
		http: client, cfg: p.config, bucket: p.bucket, root: p.root,
		log: o.log, skips: o.skips, removing: map[string]int{},
	}
	f.api = awss3.New(f.sdkOptions(creds, region, client))
	return f, nil
}

func (f *FS) sdkOptions(creds aws.CredentialsProvider, region string, client *http.Client) awss3.Options {
	opts := awss3.Options{
		Region:       region,
		Credentials:  creds,
		HTTPClient:   &doer{client: client, timeout: f.cfg.requestTimeout},
		UsePathStyle: f.cfg.pathStyle,
		Retryer:      retryer(f.cfg.retries),
		// Many servers refuse the checksums that the SDK would add by default.
		RequestChecksumCalculation:     aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:     aws.ResponseChecksumValidationWhenRequired,
		DisableMultiRegionAccessPoints: true,
	}
	if f.cfg.endpoint != "" {
		opts.BaseEndpoint = aws.String(strings.TrimSuffix(f.cfg.endpoint, "/"))
	}
	return opts
}

// retryer is for requests that change nothing. It has no quota of its own: the
// budget of retries belongs to the caller's wrapper.
func retryer(retries int) *retry.Standard {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = retries + 1
		o.Backoff = retry.BackoffDelayerFunc(backoff)
		o.RateLimiter = ratelimit.None
		refused := retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			if freshet.IsKind(err, freshet.KindPermission) {
				return aws.FalseTernary // by the endpoint policy, or a redirect
			}
			return aws.UnknownTernary
		})
		o.Retryables = append([]retry.IsErrorRetryable{refused}, o.Retryables...)
	})
}

// backoff doubles with each attempt, of which half is left to chance.
func backoff(attempt int, _ error) (time.Duration, error) {
	d := min(minBackoff<<min(attempt, 10), maxBackoff)
	return d/2 + rand.N(d/2), nil //nolint:gosec // jitter
}

func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// identity returns who asks, and the region: the option's, that of the
// environment or of the SDK's configuration files, us-east-1.
func identity(c config, env ufs.Environment) (aws.CredentialsProvider, string, error) {
	region := c.region
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if region == "" && env.Getenv != nil {
			region = env.Getenv(name)
		}
	}
	creds, err := static(c, env)
	if err != nil {
		return nil, "", err
	}
	if creds == nil {
		var configured string
		if creds, configured, err = fromSDK(c); err != nil {
			return nil, "", err
		}
		if region == "" {
			region = configured
		}
	}
	if region == "" {
		region = defaultRegion
	}
	return creds, region, nil
}

// static returns the keys that the options or the environment name, nil if they
// name none.
func static(c config, env ufs.Environment) (aws.CredentialsProvider, error) {
	refs := []string{c.accessKey, c.secretKey, c.sessionToken}
	switch {
	case c.accessKey != "":
	case c.credentials == credAnonymous:
		return aws.AnonymousCredentials{}, nil
	case c.credentials == credEnv && env.Getenv != nil && env.Getenv("AWS_ACCESS_KEY_ID") != "" && env.Getenv("AWS_SECRET_ACCESS_KEY") != "":
		refs = []string{"env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", ""}
		if env.Getenv("AWS_SESSION_TOKEN") != "" {
			refs[2] = "env:AWS_SESSION_TOKEN"
		}
	default:
		return nil, nil //nolint:nilnil // no provider is an answer
	}
	if _, err := resolve(refs, env); err != nil {
		return nil, err
	}
	return aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return resolve(refs, env)
	})), nil
}

// resolve reads the keys. They expire, so that a replaced file is read again.
func resolve(refs []string, env ufs.Environment) (aws.Credentials, error) {
	var values [3]string
	for i, text := range refs {
		if text == "" {
			continue
		}
		ref, err := ufs.ParseSecretRef(text)
		if err != nil {
			return aws.Credentials{}, err
		}
		secret, err := env.Secret(ref)
		if err != nil {
			return aws.Credentials{}, err
		}
		values[i] = secret.Reveal()
	}
	return aws.Credentials{
		AccessKeyID: values[0], SecretAccessKey: values[1], SessionToken: values[2],
		Source: "freshet references", CanExpire: true, Expires: time.Now().Add(secretLife),
	}, nil
}

// fromSDK uses the SDK's chain: environment, shared files, web identity,
// container and instance roles. Of its configuration only the identity and the
// region are taken: an endpoint is given by the option alone. Where one is, the
// instance is asked for a role only on request: a storage of one's own has no use
// for it, and elsewhere than at AWS the question hangs.
func fromSDK(c config) (aws.CredentialsProvider, string, error) {
	if c.credentials == credIAM {
		return &explained{CredentialsProvider: aws.NewCredentialsCache(ec2rolecreds.New())}, "", nil
	}
	var options []func(*awsconfig.LoadOptions) error
	if c.endpoint != "" {
		options = append(options, awsconfig.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	cfg, err := awsconfig.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		return nil, "", &freshet.Error{Op: "open s3 mount", Kind: freshet.KindInvalid, Err: fmt.Errorf("read the AWS configuration: %w", err)}
	}
	return &explained{CredentialsProvider: cfg.Credentials}, cfg.Region, nil
}

// explained says what to do when there are no credentials. Nothing was sent to
// the storage then, and to ask again would not help, unless there were some before.
type explained struct {
	aws.CredentialsProvider
	had atomic.Bool
}

// Retrieve implements aws.CredentialsProvider.
func (e *explained) Retrieve(ctx context.Context) (aws.Credentials, error) {
	const op = "get credentials"
	creds, err := e.CredentialsProvider.Retrieve(ctx)
	switch {
	case err == nil:
		e.had.Store(true)
		return creds, nil
	case e.had.Load(), ctx.Err() != nil:
		return creds, &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: fmt.Errorf("the AWS credentials can't be renewed: %w", innermost(err))}
	}
	return creds, &freshet.Error{Op: op, Kind: freshet.KindPermission, Err: fmt.Errorf(
		"no AWS credentials found: set option credentials=iam, or access_key and secret_key, or the usual AWS variables in the server's environment: %w", innermost(err))}
}
