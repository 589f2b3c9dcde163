"""What the codes and types of errors mean, for the endpoint and the servers that speak its protocol: the tables.

There is one table for each question, with its sources. Not here: how a name is looked up (`error_meaning.py`), what
messages mean (`error_words.py`), and the shapes of error objects (`error_object.py`).
"""

from __future__ import annotations

from typing import Final

QUOTA_CODES: Final = frozenset(
    {
        # platform.openai.com/docs/guides/error-codes
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        # docs.anthropic.com/en/api/errors
        "billing_error",
        # platform.moonshot.ai/docs/api/chat: also for a suspended account
        "exceeded_current_quota_error",
        # DeepSeek, SiliconFlow, Novita and gateways
        "insufficient_balance",
        "insufficient_balance_error",
        "insufficient_credits",
        "insufficient_credit",
        "insufficient_funds",
        "insufficient_user_quota",  # one-api and new-api
        "pre_consume_token_quota_failed",
        "credit_limit",  # docs.together.ai/docs/error-codes
        "payment_required",
        "payment_required_error",
        # LiteLLM's budgets for keys, users and teams
        "budget_exceeded",
        # DashScope
        "arrearage",
        "allocationquota.freetieronly",
        "accessdenied.unpurchased",
        "prepaidbilloverdue",
        "postpaidbilloverdue",
        # Volcengine
        "accountoverdueerror",
        "accountoverdue",
        # Hunyuan
        "failedoperation.resourcepackexhausted",
        "failedoperation.servicestop",
        "failedoperation.servicestoparrears",
        "quota_exhausted",
        "quota_exceeded_error",
        "spend_limit_exceeded",
        "spending_limit_exceeded",
        "monthly_limit_exceeded",
        "account_suspended",
        "account_inactive",
        "account_not_active",
        "not_enough_balance",  # Novita
        "credits_error",  # OpenCode
        "quota_exceeded",  # Azure, GitHub, StepFun: of a period, not of a minute
        "billing_disabled",  # google.rpc.ErrorInfo
        "organization_restricted",  # Groq
        "1113",  # docs.bigmodel.cn, Zhipu: in arrears, locked, plan used up or expired
        "1112",
        "1304",
        "1308",
        "1309",
        "1310",
        "11200",  # www.xfyun.cn/doc, Spark: no licence left
    }
)
"""Codes and types of errors that last until a bill is paid or a billing period ends, compared in their bare form.

DashScope: https://help.aliyun.com/zh/model-studio/error-code. Volcengine: https://www.volcengine.com/docs/82379/1299023.
Hunyuan: https://cloud.tencent.com/document/product/1729/97750.
"""

FAILED_FINISH_REASONS: Final = {
    "abort": 500,  # vLLM and SGLang: the engine gave the request up
    "cancelled": 499,
    "canceled": 499,
    "error": 500,  # OpenRouter, Mistral, vLLM
    "insufficient_system_resource": 503,  # api-docs.deepseek.com/api/create-chat-completion
    "network_error": 500,  # docs.bigmodel.cn (Zhipu): the inference failed
}
"""Finish reasons that mean that the server could not finish, and the equivalent HTTP status."""

STATUS_OF: Final = {
    # OpenAI, and vLLM's names of exceptions
    "invalid_request_error": 400,
    "bad_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,  # Azure
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthorized": 401,
    "permission_denied_error": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "unprocessable_entity_error": 422,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "requests": 429,  # the types of its rate limits
    "tokens": 429,
    "too_many_requests": 429,
    "server_error": 500,
    "internal_server_error": 500,
    "internal_error": 500,
    "api_connection_error": 503,  # the SDK's exceptions, passed on by LiteLLM
    "api_timeout_error": 504,
    "service_unavailable_error": 503,
    "timeout": 504,
    "request_timeout": 408,
    "gateway_timeout": 504,
    "bad_gateway": 502,
    "upstream_error": 502,
    "provider_error": 502,
    "server_overloaded": 503,
    "server_busy": 503,
    # llama.cpp, tools/server
    "exceed_context_size_error": 400,
    "not_supported_error": 501,
    "unavailable_error": 503,
    # Moonshot, Mistral, Cerebras
    "engine_overloaded_error": 503,
    "rate_limit_reached_error": 429,
    "rate_limited": 429,
    "service_tier_capacity_exceeded": 429,
    "too_many_tokens_error": 429,
    "queue_exceeded": 429,
    # docs.anthropic.com/en/api/errors. Its 529 is a 503 elsewhere.
    "billing_error": 402,
    "permission_error": 403,
    "request_too_large": 413,
    "api_error": 500,
    "overloaded_error": 503,
    "timeout_error": 504,
    # google.rpc.Code
    "invalid_argument": 400,
    "failed_precondition": 400,
    "out_of_range": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "aborted": 409,
    "resource_exhausted": 429,
    "cancelled": 499,
    "unknown": 500,
    "internal": 500,
    "data_loss": 500,
    "unimplemented": 501,
    "unavailable": 503,
    "deadline_exceeded": 504,
    # huggingface/text-generation-inference, router/src/server.rs
    "overloaded": 429,
    "validation": 422,
    "generation": 424,
    "incomplete_generation": 500,
    # DashScope
    "invalid_parameter": 400,
    "throttling": 429,
    "throttling.ratequota": 429,
    "throttling.allocationquota": 429,
    "throttling.user": 429,
    "limit_requests": 429,
    "limit_burst_rate": 429,
    "datainspectionfailed": 400,
    "inspectionfailed": 400,
    "system_error": 500,
    # Amazon Bedrock, Azure, Databricks, Volcengine, Hunyuan
    "throttling_exception": 429,
    "model_not_ready_exception": 429,
    "validation_exception": 400,
    "access_denied_exception": 403,
    "model_error_exception": 424,
    "model_stream_error_exception": 424,
    "no_capacity": 503,
    "rate_limit_reached": 429,
    "request_limit_exceeded": 429,
    "limit_exceeded": 429,
    "temporarily_unavailable": 503,
    "internal_failure": 500,
    # docs.bigmodel.cn, Zhipu: failures; concurrency, frequency, load
    "1200": 500,
    "1230": 500,
    "1234": 500,
    "1302": 429,
    "1303": 429,
    "1305": 429,
    # www.xfyun.cn/doc, Spark: rate, concurrency; capacity
    "11202": 429,
    "11203": 429,
    "10008": 503,
    "10110": 503,
    # cloud.baidu.com/doc/WENXINWORKSHOP, Qianfan: rates; load
    "18": 429,
    "336501": 429,
    "336502": 429,
    "336100": 503,
}
"""The status that a code or type means, for errors that come without a number. A name that is
not there as it is, in lower case, is looked up in its bare form."""

STATUS_OF_WORDS: Final = {
    "overload": 503,
    "unavailable": 503,
    "ratelimit": 429,
    "toomanyrequests": 429,
    "throttl": 429,
    "capacityexceeded": 503,
    "notfound": 404,
    "accessdenied": 403,
    "unauthorized": 401,
    "invalidapikey": 401,
    "toolarge": 413,
    "invalidparameter": 400,
    "invalidrequest": 400,
    "badrequest": 400,
    "timeout": 504,
    "timedout": 504,
    "internalerror": 500,
    "servererror": 500,
}
"""The status of names that are not listed, by a word in them; the first one counts."""

FAILED_ENDINGS: Final = ("error", "failed", "failure", "exception", "aborted", "timeout", "timed_out")
"""The endings of other finish reasons that mean a failure."""

STATUS_OF_BASE_RESP: Final = {
    # platform.minimaxi.com/document/error codes
    1000: 500,
    1001: 504,
    1002: 429,
    1004: 401,
    1008: 402,
    1013: 500,
    1024: 500,
    1026: 422,
    1027: 422,
    1033: 500,
    1039: 429,
    1041: 429,
    1042: 400,
    2013: 400,
    2049: 401,
}
"""The status that a code in MiniMax's `base_resp` means."""
