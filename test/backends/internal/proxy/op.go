package proxy

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// AnyOp in a rule matches every operation.
const AnyOp = "*"

// call is what a request asks of the server.
type call struct {
	op, bucket, key string
}

// subresource maps a query parameter to the operation it selects.
type subresource struct{ param, op string }

// Tables by method; the first parameter present wins, and the last entry, without a
// parameter, is the plain operation.
var (
	bucketOps = map[string][]subresource{
		http.MethodGet: {
			{"location", "GetBucketLocation"},
			{"versions", "ListObjectVersions"},
			{"uploads", "ListMultipartUploads"},
			{"versioning", "GetBucketVersioning"},
			{"list-type", "ListObjectsV2"},
			{"", "ListObjects"},
		},
		http.MethodPut:    {{"versioning", "PutBucketVersioning"}, {"", "CreateBucket"}},
		http.MethodHead:   {{"", "HeadBucket"}},
		http.MethodDelete: {{"", "DeleteBucket"}},
		http.MethodPost:   {{"delete", "DeleteObjects"}, {"", "PostObject"}},
	}
	objectOps = map[string][]subresource{
		http.MethodGet: {
			{"uploadId", "ListParts"},
			{"tagging", "GetObjectTagging"},
			{"attributes", "GetObjectAttributes"},
			{"acl", "GetObjectAcl"},
			{"", "GetObject"},
		},
		http.MethodHead:   {{"", "HeadObject"}},
		http.MethodPut:    {{"uploadId", "UploadPart"}, {"tagging", "PutObjectTagging"}, {"acl", "PutObjectAcl"}, {"", "PutObject"}},
		http.MethodPost:   {{"uploads", "CreateMultipartUpload"}, {"uploadId", "CompleteMultipartUpload"}, {"", "PostObject"}},
		http.MethodDelete: {{"uploadId", "AbortMultipartUpload"}, {"tagging", "DeleteObjectTagging"}, {"", "DeleteObject"}},
	}
)

// Operations not selected by the tables above.
const (
	opListBuckets    = "ListBuckets"
	opCopyObject     = "CopyObject"
	opUploadPartCopy = "UploadPartCopy"
	opUnknown        = "Unknown"
)

// classify names the S3 operation of a request and the bucket and key it names,
// in path style or (BUCKET.DOMAIN) virtual-host style. The key of a listing is
// its prefix.
func classify(r *http.Request, domain string) call {
	c := call{op: opUnknown}
	c.bucket, c.key = target(r, domain)
	query := r.URL.Query()
	switch {
	case c.bucket == "":
		if r.Method == http.MethodGet {
			c.op = opListBuckets
		}
	case c.key == "":
		c.op = pick(bucketOps[r.Method], query)
		if strings.HasPrefix(c.op, "List") {
			c.key = query.Get("prefix")
		}
	default:
		c.op = pick(objectOps[r.Method], query)
		if r.Header.Get("X-Amz-Copy-Source") == "" {
			break
		}
		switch c.op {
		case "PutObject":
			c.op = opCopyObject
		case "UploadPart":
			c.op = opUploadPartCopy
		}
	}
	return c
}

// target splits the request's address into bucket and key.
func target(r *http.Request, domain string) (bucket, key string) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if bucket, ok := strings.CutSuffix(host, "."+domain); ok && bucket != "" {
		return bucket, path
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

func pick(table []subresource, query url.Values) string {
	for _, s := range table {
		if s.param == "" || query.Has(s.param) {
			return s.op
		}
	}
	return opUnknown
}

// knownOp tells whether a rule may name op.
func knownOp(op string) bool {
	if slices.Contains([]string{AnyOp, opListBuckets, opCopyObject, opUploadPartCopy, opUnknown}, op) {
		return true
	}
	for _, tables := range []map[string][]subresource{bucketOps, objectOps} {
		for _, table := range tables {
			if slices.ContainsFunc(table, func(s subresource) bool { return s.op == op }) {
				return true
			}
		}
	}
	return false
}
