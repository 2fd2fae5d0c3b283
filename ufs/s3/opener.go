package s3

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
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
		if transport.TLSClientConfig, err = httpclient.Trust(p.caFile); err != nil {
			return nil, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: fmt.Errorf("option 'ca_file': %w", err)}
		}
	}
	if p.stsEndpoint != "" {
		if err := policy.CheckURL(p.stsEndpoint); err != nil {
			return nil, err
		}
	}
	client := &http.Client{Transport: &httpclient.Transport{Base: transport, Timeout: p.requestTimeout}, CheckRedirect: ufs.RefuseRedirect}
	creds, region, err := identity(p.config, env, client)
	if err != nil {
		return nil, err
	}
	key, err := customerKey(p.sseCKey, env)
	if err != nil {
		return nil, freshet.Wrap(op, "", invalid(err))
	}
	s := &store{http: client, cfg: p.config, bucket: p.bucket}
	s.once, s.again = retryers(p.retries, creds)
	s.api = awss3.New(s.sdkOptions(creds, region), func(opts *awss3.Options) {
		opts.APIOptions = append(opts.APIOptions, newHeaders(p.config, key).add)
	})
	f := &FS{
		FS:    object.New(s, object.Options{Root: p.root, Log: o.log, Skips: o.skips, Buffers: env.Buffers}),
		store: s, root: p.root, log: o.log, letters: o.letters, now: time.Now,
	}
	if f.queue, err = f.openQueue(creds, region, policy); err != nil {
		return nil, err
	}
	return f, nil
}

func (s *store) sdkOptions(creds aws.CredentialsProvider, region string) awss3.Options {
	opts := awss3.Options{
		Region:       region,
		Credentials:  creds,
		HTTPClient:   s.http,
		UsePathStyle: s.cfg.pathStyle,
		Retryer:      s.again,
		// Many servers refuse the checksums that the SDK would add by default.
		RequestChecksumCalculation:     aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:     aws.ResponseChecksumValidationWhenRequired,
		DisableMultiRegionAccessPoints: true,
	}
	if s.cfg.checksum == checksumSupported {
		opts.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		opts.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}
	if s.cfg.endpoint != "" {
		opts.BaseEndpoint = aws.String(strings.TrimSuffix(s.cfg.endpoint, "/"))
	}
	return opts
}

// invalid makes err KindInvalid unless it has a Kind.
func invalid(err error) error {
	if freshet.KindOf(err) == freshet.KindInternal {
		return &freshet.Error{Kind: freshet.KindInvalid, Err: err}
	}
	return err
}
