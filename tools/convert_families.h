/* convert_families.h - the families of models that Hugging Face folders hold, as tables: under which
   name GGUF has a tensor, under which key a number, and what else a model must be for that. */
#ifndef CONVERT_FAMILIES_H
#define CONVERT_FAMILIES_H

#include <stddef.h>

/* ---- Tensors ----
   A pattern is a name without its .weight or .bias and without model., transformer. and the like in
   front; * is the number of the layer, # that of an expert or a head, and a ~ at its end anything. */

typedef enum hf_change {
    HF_KEEP,
    HF_ROTATED,                         /* Q or K: with HF_PAIRS, rows i and i + size/2 of a head become neighbours */
    HF_GROUPED,                         /* Q, K, V of each group of heads: all Q, then all K, then all V */
    HF_TURNED,                          /* [in, out], as the Conv1D of GPT-2 has it */
    HF_STACKED,                         /* one tensor for each #: a dimension more */
    HF_FIRST_HALF, HF_SECOND_HALF,      /* of the rows of each expert */
    HF_DROPPED                          /* a buffer, or a part that does not make text */
} hf_change;

typedef struct hf_tensor_rule { const char *from, *to; hf_change change; } hf_tensor_rule;

static const hf_tensor_rule hf_common_tensors[] = {
    { "embed_tokens", "token_embd", HF_KEEP },
    { "norm", "output_norm", HF_KEEP },
    { "lm_head", "output", HF_KEEP },
    { "layers.*.input_layernorm", "blk.*.attn_norm", HF_KEEP },
    { "layers.*.self_attn.q_proj", "blk.*.attn_q", HF_ROTATED },
    { "layers.*.self_attn.k_proj", "blk.*.attn_k", HF_ROTATED },
    { "layers.*.self_attn.v_proj", "blk.*.attn_v", HF_KEEP },
    { "layers.*.self_attn.qkv_proj", "blk.*.attn_qkv", HF_KEEP },
    { "layers.*.self_attn.o_proj", "blk.*.attn_output", HF_KEEP },
    { "layers.*.self_attn.q_norm", "blk.*.attn_q_norm", HF_KEEP },
    { "layers.*.self_attn.k_norm", "blk.*.attn_k_norm", HF_KEEP },
    { "layers.*.post_attention_layernorm", "blk.*.ffn_norm", HF_KEEP },
    { "layers.*.mlp.gate_proj", "blk.*.ffn_gate", HF_KEEP },
    { "layers.*.mlp.up_proj", "blk.*.ffn_up", HF_KEEP },
    { "layers.*.mlp.gate_up_proj", "blk.*.ffn_up", HF_KEEP },
    { "layers.*.mlp.down_proj", "blk.*.ffn_down", HF_KEEP },
    { "layers.*.mlp.gate", "blk.*.ffn_gate_inp", HF_KEEP },
    { "layers.*.mlp.experts.#.gate_proj", "blk.*.ffn_gate_exps", HF_STACKED },
    { "layers.*.mlp.experts.#.up_proj", "blk.*.ffn_up_exps", HF_STACKED },
    { "layers.*.mlp.experts.#.down_proj", "blk.*.ffn_down_exps", HF_STACKED },
    { "layers.*.mlp.experts.gate_up_proj", "blk.*.ffn_gate_exps", HF_FIRST_HALF },
    { "layers.*.mlp.experts.gate_up_proj", "blk.*.ffn_up_exps", HF_SECOND_HALF },
    { "layers.*.mlp.experts.down_proj", "blk.*.ffn_down_exps", HF_KEEP },
    { "layers.*.self_attn.rotary_emb.inv_freq", NULL, HF_DROPPED },
    { "rotary_emb.inv_freq", NULL, HF_DROPPED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_mixtral_tensors[] = {
    { "layers.*.block_sparse_moe.gate", "blk.*.ffn_gate_inp", HF_KEEP },
    { "layers.*.block_sparse_moe.experts.#.w1", "blk.*.ffn_gate_exps", HF_STACKED },
    { "layers.*.block_sparse_moe.experts.#.w2", "blk.*.ffn_down_exps", HF_STACKED },
    { "layers.*.block_sparse_moe.experts.#.w3", "blk.*.ffn_up_exps", HF_STACKED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_granitemoe_tensors[] = {
    { "layers.*.block_sparse_moe.router.layer", "blk.*.ffn_gate_inp", HF_KEEP },
    { "layers.*.block_sparse_moe.input_linear", "blk.*.ffn_gate_exps", HF_FIRST_HALF },
    { "layers.*.block_sparse_moe.input_linear", "blk.*.ffn_up_exps", HF_SECOND_HALF },
    { "layers.*.block_sparse_moe.output_linear", "blk.*.ffn_down_exps", HF_KEEP },
    { NULL, NULL, HF_KEEP }
};
/* Norms behind attention and MLP: Gemma 2 and 3, OLMo 2. */
static const hf_tensor_rule hf_sandwich_tensors[] = {
    { "layers.*.post_attention_layernorm", "blk.*.post_attention_norm", HF_KEEP },
    { "layers.*.pre_feedforward_layernorm", "blk.*.ffn_norm", HF_KEEP },
    { "layers.*.post_feedforward_layernorm", "blk.*.post_ffw_norm", HF_KEEP },
    { "vision_tower.~", NULL, HF_DROPPED },
    { "multi_modal_projector.~", NULL, HF_DROPPED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_phi2_tensors[] = {
    { "final_layernorm", "output_norm", HF_KEEP },
    { "layers.*.self_attn.dense", "blk.*.attn_output", HF_KEEP },
    { "layers.*.mlp.fc1", "blk.*.ffn_up", HF_KEEP },
    { "layers.*.mlp.fc2", "blk.*.ffn_down", HF_KEEP },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_starcoder2_tensors[] = {
    { "layers.*.mlp.c_fc", "blk.*.ffn_up", HF_KEEP },
    { "layers.*.mlp.c_proj", "blk.*.ffn_down", HF_KEEP },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_stablelm_tensors[] = {
    { "layers.*.self_attn.q_layernorm.norms.#", "blk.*.attn_q_norm", HF_STACKED },
    { "layers.*.self_attn.k_layernorm.norms.#", "blk.*.attn_k_norm", HF_STACKED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_gptneox_tensors[] = {
    { "embed_in", "token_embd", HF_KEEP },
    { "final_layer_norm", "output_norm", HF_KEEP },
    { "embed_out", "output", HF_KEEP },
    { "layers.*.attention.query_key_value", "blk.*.attn_qkv", HF_GROUPED },
    { "layers.*.attention.dense", "blk.*.attn_output", HF_KEEP },
    { "layers.*.mlp.dense_h_to_4h", "blk.*.ffn_up", HF_KEEP },
    { "layers.*.mlp.dense_4h_to_h", "blk.*.ffn_down", HF_KEEP },
    { "layers.*.attention.bias", NULL, HF_DROPPED },
    { "layers.*.attention.masked_bias", NULL, HF_DROPPED },
    { "layers.*.attention.rotary_emb.inv_freq", NULL, HF_DROPPED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_falcon_tensors[] = {
    { "word_embeddings", "token_embd", HF_KEEP },
    { "ln_f", "output_norm", HF_KEEP },
    { "h.*.input_layernorm", "blk.*.attn_norm", HF_KEEP },
    { "h.*.ln_mlp", "blk.*.attn_norm", HF_KEEP },
    { "h.*.ln_attn", "blk.*.attn_norm_2", HF_KEEP },
    { "h.*.self_attention.query_key_value", "blk.*.attn_qkv", HF_GROUPED },
    { "h.*.self_attention.dense", "blk.*.attn_output", HF_KEEP },
    { "h.*.mlp.dense_h_to_4h", "blk.*.ffn_up", HF_KEEP },
    { "h.*.mlp.dense_4h_to_h", "blk.*.ffn_down", HF_KEEP },
    { "h.*.self_attention.rotary_emb.inv_freq", NULL, HF_DROPPED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_gpt2_tensors[] = {
    { "wte", "token_embd", HF_KEEP },
    { "wpe", "position_embd", HF_KEEP },
    { "ln_f", "output_norm", HF_KEEP },
    { "h.*.ln_1", "blk.*.attn_norm", HF_KEEP },
    { "h.*.ln_2", "blk.*.ffn_norm", HF_KEEP },
    { "h.*.attn.c_attn", "blk.*.attn_qkv", HF_TURNED },
    { "h.*.attn.c_proj", "blk.*.attn_output", HF_TURNED },
    { "h.*.mlp.c_fc", "blk.*.ffn_up", HF_TURNED },
    { "h.*.mlp.c_proj", "blk.*.ffn_down", HF_TURNED },
    { "h.*.attn.bias", NULL, HF_DROPPED },
    { "h.*.attn.masked_bias", NULL, HF_DROPPED },
    { NULL, NULL, HF_KEEP }
};
static const hf_tensor_rule hf_bert_tensors[] = {
    { "embeddings.word_embeddings", "token_embd", HF_KEEP },
    { "embeddings.position_embeddings", "position_embd", HF_KEEP },
    { "embeddings.token_type_embeddings", "token_types", HF_KEEP },
    { "embeddings.LayerNorm", "token_embd_norm", HF_KEEP },
    { "encoder.layer.*.attention.self.query", "blk.*.attn_q", HF_KEEP },
    { "encoder.layer.*.attention.self.key", "blk.*.attn_k", HF_KEEP },
    { "encoder.layer.*.attention.self.value", "blk.*.attn_v", HF_KEEP },
    { "encoder.layer.*.attention.output.dense", "blk.*.attn_output", HF_KEEP },
    { "encoder.layer.*.attention.output.LayerNorm", "blk.*.attn_output_norm", HF_KEEP },
    { "encoder.layer.*.intermediate.dense", "blk.*.ffn_up", HF_KEEP },
    { "encoder.layer.*.output.dense", "blk.*.ffn_down", HF_KEEP },
    { "encoder.layer.*.output.LayerNorm", "blk.*.layer_output_norm", HF_KEEP },
    { "embeddings.position_ids", NULL, HF_DROPPED },
    { "pooler.~", NULL, HF_DROPPED },
    { "cls.~", NULL, HF_DROPPED },
    { NULL, NULL, HF_KEEP }
};

/* ---- Keys: "<architecture>.<to>" is the first of config.json's values `from` that is there ---- */

typedef enum hf_number { HF_WHOLE, HF_REAL, HF_TRUTH } hf_number;
typedef struct hf_key_rule { const char *to; hf_number kind; const char *from; bool needed; } hf_key_rule;

static const hf_key_rule hf_keys[] = {
    { "vocab_size", HF_WHOLE, "vocab_size", true },
    { "context_length", HF_WHOLE, "max_position_embeddings n_positions", true },
    { "embedding_length", HF_WHOLE, "hidden_size n_embd", true },
    { "block_count", HF_WHOLE, "num_hidden_layers n_layer", true },
    { "attention.head_count", HF_WHOLE, "num_attention_heads n_head", true },
    { "attention.key_length", HF_WHOLE, "head_dim", false },
    { "attention.value_length", HF_WHOLE, "head_dim", false },
    { "attention.layer_norm_rms_epsilon", HF_REAL, "rms_norm_eps", false },
    { "attention.layer_norm_epsilon", HF_REAL, "layer_norm_eps layer_norm_epsilon norm_epsilon", false },
    { "use_parallel_residual", HF_TRUTH, "use_parallel_residual", false },
    { "expert_count", HF_WHOLE, "num_local_experts num_experts", false },
    { "expert_used_count", HF_WHOLE, "num_experts_per_tok", false },
    { "expert_feed_forward_length", HF_WHOLE, "moe_intermediate_size", false },
    { "attention.scale", HF_REAL, "attention_multiplier", false },
    { "embedding_scale", HF_REAL, "embedding_multiplier", false },
    { "residual_scale", HF_REAL, "residual_multiplier", false },
    { "logit_scale", HF_REAL, "logits_scaling", false },
    { "attn_logit_softcapping", HF_REAL, "attn_logit_softcapping", false },
    { "final_logit_softcapping", HF_REAL, "final_logit_softcapping", false }
};

/* ---- Families ---- */

enum {
    HF_PAIRS = 1,                       /* GGUF's architecture rotates neighbouring pairs */
    HF_NORMS_PLUS_ONE = 2,              /* weights of norms are stored less 1 */
    HF_LEARNED = 4,                     /* positions from a table, no rotation */
    HF_ENCODER = 8
};

typedef struct hf_family {
    const char *type, *arch;            /* config.json's model_type, one of a list; general.architecture */
    int is;
    int global_every;                   /* what GGUF readers take for granted: every such layer has no window */
    const hf_tensor_rule *tensors;      /* before those of hf_common_tensors */
    const char *defaults;               /* JSON: what config.json may leave out */
    const char *needs;                  /* JSON: values that a key may have; anything else is another computation */
} hf_family;

#define HF_SILU "\"hidden_act\": [\"silu\", \"swish\"]"
#define HF_GELU_TANH "[\"gelu_new\", \"gelu_pytorch_tanh\", \"gelu_fast\"]"

static const hf_family hf_families[] = {
    { "llama mistral", "llama", HF_PAIRS, 0, hf_common_tensors, NULL, "{" HF_SILU "}" },
    { "mixtral", "llama", HF_PAIRS, 0, hf_mixtral_tensors, NULL, "{" HF_SILU "}" },
    { "qwen2", "qwen2", 0, 0, hf_common_tensors, NULL, "{" HF_SILU "}" },
    { "qwen3", "qwen3", 0, 0, hf_common_tensors, "{\"head_dim\": 128}", "{" HF_SILU "}" },
    { "qwen3_moe", "qwen3moe", 0, 0, hf_common_tensors, NULL,
      "{" HF_SILU ", \"norm_topk_prob\": [true], \"mlp_only_layers\": [[]], \"decoder_sparse_step\": [1]}" },
    { "gemma", "gemma", HF_NORMS_PLUS_ONE, 0, hf_common_tensors, "{\"head_dim\": 256}",
      "{\"hidden_act\": [\"gelu\", \"gelu_pytorch_tanh\"], \"use_bidirectional_attention\": [false]}" },
    { "gemma2", "gemma2", HF_NORMS_PLUS_ONE, 2, hf_sandwich_tensors,
      "{\"head_dim\": 256, \"query_pre_attn_scalar\": 256, \"sliding_window\": 4096,"
      " \"attn_logit_softcapping\": 50, \"final_logit_softcapping\": 30}",
      "{\"hidden_activation\": [\"gelu_pytorch_tanh\"], \"use_bidirectional_attention\": [false]}" },
    { "gemma3_text gemma3", "gemma3", HF_NORMS_PLUS_ONE, 6, hf_sandwich_tensors,
      "{\"vocab_size\": 262208, \"num_attention_heads\": 8, \"num_key_value_heads\": 4, \"head_dim\": 256,"
      " \"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-6, \"query_pre_attn_scalar\": 256,"
      " \"sliding_window\": 4096, \"rope_theta\": 1e6, \"rope_local_base_freq\": 1e4}",
      "{\"hidden_activation\": [\"gelu_pytorch_tanh\"], \"use_bidirectional_attention\": [false],"
      " \"attn_logit_softcapping\": [], \"final_logit_softcapping\": []}" },
    { "phi", "phi2", 0, 0, hf_phi2_tensors, "{\"partial_rotary_factor\": 0.5}",
      "{\"hidden_act\": " HF_GELU_TANH ", \"qk_layernorm\": [false]}" },
    { "phi3", "phi3", 0, 0, hf_common_tensors, NULL, "{" HF_SILU "}" },
    { "gpt_neox", "gptneox", 0, 0, hf_gptneox_tensors, "{\"rotary_pct\": 0.25, \"use_parallel_residual\": true}",
      "{\"hidden_act\": [\"gelu\"]}" },
    { "stablelm stablelm_epoch", "stablelm", 0, 0, hf_stablelm_tensors, "{\"partial_rotary_factor\": 0.25}",
      "{" HF_SILU "}" },
    { "falcon RefinedWeb RefinedWebModel", "falcon", 0, 0, hf_falcon_tensors,
      "{\"max_position_embeddings\": 2048, \"layer_norm_epsilon\": 1e-5}",
      "{\"activation\": [\"gelu\"], \"alibi\": [false], \"parallel_attn\": [true],"
      " \"num_ln_in_parallel_attn\": [1, 2]}" },
    { "starcoder2", "starcoder2", 0, 0, hf_starcoder2_tensors, NULL, "{\"hidden_act\": " HF_GELU_TANH "}" },
    { "olmo2", "olmo2", 0, 4, hf_sandwich_tensors, NULL, "{" HF_SILU "}" },
    { "olmoe", "olmoe", 0, 0, hf_common_tensors, NULL,
      "{" HF_SILU ", \"norm_topk_prob\": [false], \"clip_qkv\": []}" },
    { "smollm3", "smollm3", HF_PAIRS, 0, hf_common_tensors, NULL, "{" HF_SILU ", \"no_rope_layer_interval\": [4]}" },
    { "granite", "granite", HF_PAIRS, 0, hf_common_tensors, NULL, "{" HF_SILU "}" },
    { "granitemoe", "granitemoe", HF_PAIRS, 0, hf_granitemoe_tensors, NULL, "{" HF_SILU "}" },
    { "gpt2", "gpt2", HF_LEARNED, 0, hf_gpt2_tensors, NULL,
      "{\"activation_function\": " HF_GELU_TANH ", \"scale_attn_weights\": [true],"
      " \"scale_attn_by_inverse_layer_idx\": [false], \"add_cross_attention\": [false]}" },
    { "bert", "bert", HF_LEARNED | HF_ENCODER, 0, hf_bert_tensors, NULL,
      "{\"hidden_act\": [\"gelu\"], \"position_embedding_type\": [\"absolute\"], \"is_decoder\": [false]}" }
};

#endif
