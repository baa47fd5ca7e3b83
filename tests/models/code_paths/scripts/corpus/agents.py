"""Models-from-code that converse: each kind of MLflow's, the one that ``model_config`` names."""

import mlflow
from mlflow.pyfunc import ChatAgent, ChatModel, PythonModel, ResponsesAgent
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow.types.responses import ResponsesAgentResponse


class Chat(ChatModel):
    def predict(self, context, messages, params):
        text = f"{len(messages)} messages, the last: {messages[-1].content}; {params.temperature}"
        choice = ChatChoice(index=0, message=ChatMessage(role="assistant", content=text))
        return ChatCompletionResponse(choices=[choice], model="echo", created=1, id="one")


class Agent(ChatAgent):
    def predict(self, messages, context=None, custom_inputs=None):
        text = f"{messages[-1].content}; {context.user_id if context else None}; {custom_inputs}"
        return ChatAgentResponse(
            messages=[ChatAgentMessage(role="assistant", content=text, id="one")]
        )


class Responses(ResponsesAgent):
    def predict(self, request):
        said = request.input[-1].model_dump()["content"]
        item = self.create_text_output_item(f"{said}; {request.custom_inputs}", "one")
        return ResponsesAgentResponse(output=[item], custom_outputs=request.custom_inputs)


class Plain(PythonModel):
    """Takes what a chat's client sends, without a signature."""

    def predict(self, context, model_input, params=None):
        return {"given": str(type(model_input).__name__), "said": str(model_input)}


AGENTS = {one.__name__: one for one in (Chat, Agent, Responses, Plain)}
mlflow.models.set_model(AGENTS[mlflow.models.ModelConfig().get("agent")]())
