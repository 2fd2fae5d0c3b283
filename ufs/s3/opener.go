package s3

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// maxConns is how many connections one mount has to its endpoint.
const maxConns = 256

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
	if p.stsEndpoint != "" {
		if err := policy.CheckURL(p.stsEndpoint); err != nil {
			return nil, err
		}
	}
	client := &http.Client{Transport: transport, CheckRedirect: ufs.RefuseRedirect}
	creds, region, err := identity(p.config, env, client)
	if err != nil {
		return nil, err
	}
	key, err := customerKey(p.sseCKey, env)
	if err != nil {
		return nil, freshet.Wrap(op, "", invalid(err))
	}
	f := &FS{
		http: client, cfg: p.config, bucket: p.bucket, root: p.root,
		log: o.log, skips: o.skips, letters: o.letters, removing: map[string]int{}, now: time.Now,
	}
	f.once, f.again = retryers(p.retries, creds)
	f.api = awss3.New(f.sdkOptions(creds, region, client), func(opts *awss3.Options) {
		opts.APIOptions = append(opts.APIOptions, newHeaders(p.config, key).add)
	})
	if f.queue, err = f.openQueue(creds, region, policy); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *FS) sdkOptions(creds aws.CredentialsProvider, region string, client *http.Client) awss3.Options {
	opts := awss3.Options{
		Region:       region,
		Credentials:  creds,
		HTTPClient:   &doer{client: client, timeout: f.cfg.requestTimeout},
		UsePathStyle: f.cfg.pathStyle,
		Retryer:      f.again,
		// Many servers refuse the checksums that the SDK would add by default.
		RequestChecksumCalculation:     aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:     aws.ResponseChecksumValidationWhenRequired,
		DisableMultiRegionAccessPoints: true,
	}
	if f.cfg.checksum == checksumSupported {
		opts.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		opts.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}
	if f.cfg.endpoint != "" {
		opts.BaseEndpoint = aws.String(strings.TrimSuffix(f.cfg.endpoint, "/"))
	}
	return opts
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

// invalid makes err KindInvalid unless it has a Kind.
func invalid(err error) error {
	if freshet.KindOf(err) == freshet.KindInternal {
		return &freshet.Error{Kind: freshet.KindInvalid, Err: err}
	}
	return err
}
